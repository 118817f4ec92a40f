"""Connections over HTTP: who opens them, by which route, how many there may be, and who may use one next."""
