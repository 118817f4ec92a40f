"""Texts as they are indexed and searched, and queries in the syntax of SQLite's FTS5."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["TOKENIZER", "indexed", "terms_of"]

TOKENIZER: Final = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
"""What FTS5 divides texts with; vowels that are marks belong to their words, as in Hindi."""

_MOST_TERMS: Final = 32
_LONGEST_TERM: Final = 64
_LONGEST_QUERY: Final = 2_000

_WORD: Final = re.compile(r"[^\W_]+")
# The letters that begin a part of a name in camelCase; with the letter first, the search for them is quick.
_CAMEL: Final = re.compile(r"[A-Z](?:(?<=[a-z0-9][A-Z])|(?<=[A-Z][A-Z])(?=[a-z]))")
# Scripts that put no blanks between words, or endings on them: Thai, Lao, Khmer, Japanese, Chinese and Korean.
_UNSPACED: Final = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff]+")


def indexed(text: str, *, is_name: bool = False) -> str:
    """Return a text as the index takes it.

    What has no blanks between its words is cut into overlapping pairs of characters. A name in ``camelCase`` is followed
    by its parts; at ``_``, ``-`` and ``.``, SQLite divides it.
    """
    if not text.isascii():
        # Half of a surrogate pair cannot be stored.
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
        text = _UNSPACED.sub(_in_pairs, text)
    if is_name:
        parts = _parted(text)
        if parts != text:
            return f"{text} {parts}"
    return text


def terms_of(query: str) -> list[str]:
    """Return the words of a query, each once and at most 32, as strings of FTS5's syntax without any other meaning."""
    text = indexed(query[:_LONGEST_QUERY])[: 2 * _LONGEST_QUERY]
    words = _WORD.findall(text) if text.isascii() else "".join(map(_in_words, text)).split()
    found: dict[str, None] = {}
    for word in words:
        for part in dict.fromkeys((word, *_parted(word).split())):
            found.setdefault(f'"{part[:_LONGEST_TERM].lower()}"')
            if len(found) == _MOST_TERMS:
                return list(found)
    return list(found)


def _parted(text: str) -> str:
    return _CAMEL.sub(r" \g<0>", text)


def _in_words(character: str) -> str:
    return character if character.isalnum() or unicodedata.category(character) in ("Mn", "Mc") else " "


def _in_pairs(run: re.Match[str]) -> str:
    text = run.group()
    if len(text) < 2:
        return f" {text} "
    return f" {' '.join(text[start : start + 2] for start in range(len(text) - 1))} "
