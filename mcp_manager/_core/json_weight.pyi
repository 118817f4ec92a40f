"""Estimates what decoding JSON text costs before it is decoded: peers choose the text, and dense text costs most."""

def weigh(data: bytes | memoryview, limit: int) -> tuple[int, int]:
    """Count the values that decoding JSON text makes, and the bytes that its strings take in memory.

    Parameters
    ----------
    data
        JSON text; text that is not JSON is read to its end as well.
    limit
        Reading ends once there are more values than this.

    Returns
    -------
    The number of values, and the bytes of the strings. A number, a literal, a string and the name of a member are one
    value each, an object or array two. A number with many digits or a large exponent counts as the number of values
    that could be decoded in the same time, and so does a string with many escapes. A string takes its length times the
    1, 2 or 4 bytes of its widest character. The extra room that the decoder needs is counted once, for the string that
    needs most.
    """
