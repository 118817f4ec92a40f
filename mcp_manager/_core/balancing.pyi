"""Balancing: which of a server's backends takes a call. All of it is for the compiled core."""

__pyx_capi__: dict[str, object]
