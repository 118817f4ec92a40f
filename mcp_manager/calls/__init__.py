"""The call path: which server and instance takes a call, and what happens when one does not answer."""
