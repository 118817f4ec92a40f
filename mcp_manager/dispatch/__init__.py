"""The way of a call: which server and instance takes it, and what is done when one does not answer."""
