"""Writes HTTP responses."""

__pyx_capi__: dict[str, object]
