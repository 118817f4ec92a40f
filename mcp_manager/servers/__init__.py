"""One server: its instances, and the supervisor that starts, drains and replaces them."""
