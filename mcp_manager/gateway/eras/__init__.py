"""How the gateway speaks with clients of the two eras of the protocol."""
