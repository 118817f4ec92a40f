"""Errors of servers, bounded where they are read: code and message stay, what is too much to be shown goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.protocol.rpc_error import LONGEST_ERROR, bounded, error_text, read_error, rpc_error

SECRET = "sk-S3cr3tV4lue99"


def encoded(**members: Any) -> bytes:
    return json.dumps({"code": -32000, "message": "no", **members}, separators=(",", ":")).encode()


def test_an_error_of_the_usual_size_is_read_as_it_is() -> None:
    error = encoded(data={"rows": ["x" * 100] * 100})
    assert bounded(error) is error
    made = rpc_error("s", error)
    assert made.data == {"rows": ["x" * 100] * 100}
    assert made.hint == ""


@pytest.mark.parametrize(
    "data",
    ['"' + "x" * LONGEST_ERROR + '"', "[" + "{}," * 20_000 + "{}]", "[" + "1e308," * 3_000 + "0]"],
    ids=["long", "dense", "costly numbers"],
)
def test_data_that_is_too_much_is_left_out_and_the_error_says_so(data: str) -> None:
    made = rpc_error("s", b'{"code":-32001,"message":"why","data":%b}' % data.encode())
    assert (made.code, made.message, made.data) == (-32001, "why", None)
    assert "execute_raw" in made.hint
    assert "execute_raw" in str(made)


@pytest.mark.parametrize("letter", ["a", "é", "\n", "😀", '"', "\\"])
@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("shift", range(6))
def test_a_long_message_keeps_its_beginning_wherever_it_is_cut(letter: str, ensure_ascii: bool, shift: int) -> None:
    message = "x" * shift + letter * 300_000
    error = json.dumps({"message": message, "code": 7, "data": 1}, ensure_ascii=ensure_ascii).encode()
    made = rpc_error("s", error)
    assert made.code == 7
    assert message.startswith(made.message)
    assert 5_000 < len(made.message) <= 16_384
    assert len(str(made)) < 2_200


def test_a_secret_at_the_cut_is_masked() -> None:
    secrets = Secrets(ServerConfig(url="http://h/", headers={"X-Api-Key": SECRET}))
    for before in range(180, 205):
        text = error_text(encoded(message="x" * before + SECRET + "y" * 500), secrets)
        assert SECRET[:6] not in text
    for before in (16_360, 16_370, 16_383, 65_520, 65_530):
        made = rpc_error("s", encoded(message="x" * before + SECRET * 20_000), secrets)
        assert SECRET[:6] not in made.message


def test_an_error_that_cannot_be_read_is_one_all_the_same() -> None:
    assert read_error(b'{"code":1,"message":"' + b"\xff" * 300_000 + b'"}').code == 1
    assert read_error(b'{"code":' + b"[" * 300_000).code == 0
