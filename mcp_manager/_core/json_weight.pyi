"""What decoding JSON text costs, told before it is decoded: peers choose the text, and dense text costs most."""

def weigh(data: bytes | memoryview, limit: int) -> tuple[int, int]:
    """Count what decoding makes of JSON text: its values, and the bytes of its strings in memory.

    Parameters
    ----------
    data
        JSON text; whatever else it is, it is read to its end and no further.
    limit
        The reading ends once there are more values than this.

    Returns
    -------
    A number, a literal, a string and the name of a member are one value each, an object or array two. A number of many
    digits, or of a large exponent, is as many as could be decoded in its time,
    and so is a string of many escapes. A string takes its length times the 1, 2
    or 4 bytes of its widest character. Room that the decoder needs beside is counted for the string that needs most.
    """
