"""Load balancing: which backend of a server takes a call. Only the compiled core uses it."""

__pyx_capi__: dict[str, object]
