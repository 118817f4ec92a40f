"""Tools for models that find other tools: for catalogues that are too large to be listed."""
