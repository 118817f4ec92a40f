"""One server: its instances, and who starts and replaces them."""
