"""What clients see at a path: one server, all servers, or a view of them."""
