"""Who clients of the gateway are, what they may use and how much of it, and what is recorded of that."""
