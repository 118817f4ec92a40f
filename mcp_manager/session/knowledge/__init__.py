"""What is known of one server and outlives each of its sessions."""
