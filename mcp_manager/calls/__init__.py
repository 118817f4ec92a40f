"""The call path: the choice of server and instance for each call, and what happens if an attempt fails."""
