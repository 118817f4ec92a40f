"""What decoding costs is told before it is done: counts of values and text, for whatever bytes."""

from __future__ import annotations

import pytest

from mcp_manager._core.json_weight import weigh

PLENTY = 1_000_000


@pytest.mark.parametrize(
    ("text", "values", "size"),
    [
        ("", 0, 0),
        ("null", 1, 0),
        ("-12.5e3", 1, 0),
        ("[true, false]", 4, 0),
        ('{"ab": {}}', 5, 2),
        ('["", "abc"]', 4, 3),
        (r'"a\n\"b"', 1, 8),
        ('"é"', 1, 2),
        ('"aaaaaaaaaaaaaaaaaaaa€"', 1, 46),
        ('"aaaaaaaaaaaaaaaaaaaa😀"', 1, 96),
        (r'"a\u20ac"', 1, 12),
        (r'"a\ud83d\ude00"', 1, 35),
        (r'"a\u00e9"', 1, 8),
        ('["aé", "éé"]', 4, 6),
    ],
)
def test_values_and_text_are_counted(text: str, values: int, size: int) -> None:
    data = text.encode()
    assert weigh(data, PLENTY) == weigh(memoryview(b" " + data + b"\n")[1:-1], PLENTY) == (values, size)


@pytest.mark.parametrize(
    "costly",
    [b"7" * 4000, b"1." + b"7" * 100_000, b"1e308", b"1.5E+300", b'"' + b"\\n" * 20_000 + b'"'],
    ids=["digits", "fraction", "exponent", "signed exponent", "escapes"],
)
def test_what_takes_longer_counts_as_more(costly: bytes) -> None:
    assert weigh(costly, PLENTY)[0] > 200


@pytest.mark.parametrize("usual", [b"1e-7", b"6.02e23", b"-3.141592653589793", b"9007199254740993", rb'"a\nb\n"'])
def test_what_is_usual_counts_once(usual: bytes) -> None:
    assert weigh(usual, PLENTY)[0] == 1


def test_it_ends_soon_after_its_limit() -> None:
    values, _ = weigh(b"[" + b"{}," * 1_000_000 + b"{}]", 1000)
    assert 1000 < values <= 1002


@pytest.mark.parametrize("cut", ['{"a', '"\\', '"\\u', '"\\u1', "-", "1e", "1.", "tru", '"é'])
def test_text_that_ends_anywhere_is_read_no_further(cut: str) -> None:
    data = cut.encode()
    behind = memoryview(data + b'"' * 16)[: len(data)]
    assert weigh(behind, PLENTY) == weigh(data, PLENTY)


def test_bytes_that_are_no_json_are_harmless() -> None:
    for byte in range(256):
        weigh(bytes([byte]) * 33, PLENTY)
        weigh(b'"' + bytes([byte]) * 33, PLENTY)
