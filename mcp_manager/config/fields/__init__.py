"""The fields of the configuration as ``TypedDict`` types: what type checkers and editors know of every field."""
