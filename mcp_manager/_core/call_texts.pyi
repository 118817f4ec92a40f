"""Looks into the text of a ``tools/call`` and of its response: for other compiled modules alone."""

__pyx_capi__: dict[str, object]
