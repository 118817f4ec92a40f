"""What is known about one server and outlives its sessions."""
