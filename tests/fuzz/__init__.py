"""Fuzzing of the compiled core: whatever it is given, it answers or refuses, and the interpreter lives on."""
