"""An agent that works with the thousand tools of an office."""
