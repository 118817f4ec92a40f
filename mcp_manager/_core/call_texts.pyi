"""Looks into the text of a ``tools/call`` and of its response: for other compiled modules alone."""
