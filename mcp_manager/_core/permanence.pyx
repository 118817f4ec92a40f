"""Keeps objects from being destroyed."""

from cpython.ref cimport Py_INCREF

__all__ = ["make_permanent"]


def make_permanent(object kept):
    Py_INCREF(kept)
