"""How many tokens of a model definitions of tools take."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from mcp_manager.adapters.definitions import definition_of
from mcp_manager.verbs.fleet_tools import FleetTool

__all__ = ["CountTokens", "estimated_tokens", "within_budget"]

CountTokens = Callable[[str], int]
"""Returns the number of tokens of a text."""

_PIECES: Final = re.compile(r"[A-Za-z]+|[0-9]{1,3}|[^\x00-\x7f]|[^A-Za-z0-9\s]+|\n+")
_LETTERS_PER_TOKEN: Final = 7
_SIGNS_PER_TOKEN: Final = 3


def estimated_tokens(text: str) -> int:
    """Estimate the number of tokens of a text, for models whose tokenizer is not at hand.

    It counts pieces as the tokenizers of large models cut them: a word is a token for each seven letters or part of
    them, three digits or punctuation marks in a row are one, and so is each character beyond ASCII. For definitions of
    tools it is rarely too low, and seldom more than a third too high.
    """
    count = 0
    for piece in _PIECES.findall(text):
        first = piece[0]
        if first.isascii() and first.isalpha():
            count += -(-len(piece) // _LETTERS_PER_TOKEN)
        elif first.isascii() and not first.isdigit() and first != "\n":
            count += -(-len(piece) // _SIGNS_PER_TOKEN)
        else:
            count += 1
    return count


def within_budget(tools: Iterable[FleetTool], max_tokens: int, count_tokens: CountTokens) -> list[FleetTool]:
    """Return the tools whose definitions fit a budget together: each one in turn that still fits."""
    left = max_tokens
    found = []
    for tool in tools:
        size = count_tokens(msgspec.json.encode(definition_of(tool)).decode())
        if size <= left:
            left -= size
            found.append(tool)
    return found
