"""Hot paths, compiled. No clock, no randomness, no configuration: all are passed in."""
