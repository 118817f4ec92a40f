"""Ranked search in short texts, by BM25F.

The score of a document for a query is the sum, over the terms of the query, of::

    idf(t) * tf / (tf + k1 * (1 - b + b * length / average_length))
    idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))

``tf`` is how often the document has the term and ``length`` how many terms it has, each occurrence counted with the
weight of its field; ``N`` is the number of documents, ``n(t)`` that of those with the term. The formula is that of
Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), sections 3.3 to 3.6, with one
``b`` for all fields; the ``idf``, which is never negative, is that of Apache Lucene.
"""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

__all__ = ["Bm25Index", "Field", "terms_of"]

Field = tuple[float, str]
"""A text of a document, and the weight of its terms."""

# Longer words are rare, and could fill memory.
_LONGEST_KEPT: Final = 64
_K1: Final = 1.2
_B: Final = 0.75

_WORD: Final = re.compile(r"[^\W_]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Scripts that put no blanks between words.
_UNSPACED: Final = re.compile(r"([\u3040-\u30ff\u3400-\u9fff]+)")


class Bm25Index:
    """Texts to search in; immutable.

    Parameters
    ----------
    documents
        The fields of each document.
    """

    def __init__(self, documents: Iterable[Sequence[Field]]) -> None:
        # By term: the documents that have it, and how much it adds to the score of each.
        self._postings: dict[str, tuple[array[int], array[float]]] = {}
        lengths: list[float] = []
        for number, fields in enumerate(documents):
            frequencies: dict[str, float] = {}
            length = 0.0
            for weight, text in fields:
                for term in terms_of(text):
                    frequencies[term] = frequencies.get(term, 0.0) + weight
                    length += weight
            lengths.append(length)
            for term, frequency in frequencies.items():
                posting = self._postings.get(term)
                if posting is None:
                    posting = self._postings[term] = (array("I"), array("d"))
                posting[0].append(number)
                posting[1].append(frequency)
        self._size = len(lengths)
        self._weigh(lengths)

    def __len__(self) -> int:
        return self._size

    def search(
        self, query: str, limit: int | None = None, *, among: Callable[[int], bool] | None = None
    ) -> list[tuple[int, float]]:
        """Return the number and score of each document that has a term of the query, the best first.

        Documents with the same score are in the order in which they were given.

        Parameters
        ----------
        query
            What to look for.
        limit
            How many to return at most; ``None`` for all.
        among
            Says by its number whether a document may be returned; ``None`` for all of them.
        """
        scores: dict[int, float] = {}
        for term in dict.fromkeys(terms_of(query)):
            posting = self._postings.get(term)
            if posting is not None:
                for number, score in zip(*posting, strict=True):
                    scores[number] = scores.get(number, 0.0) + score
        found = scores.items() if among is None else [each for each in scores.items() if among(each[0])]
        return heapq.nsmallest(len(found) if limit is None else limit, found, key=lambda each: (-each[1], each[0]))

    def _weigh(self, lengths: Sequence[float]) -> None:
        """Replace the frequencies of all terms by what they add to a score."""
        average = sum(lengths) / len(lengths) if any(lengths) else 1.0
        norms = [_K1 * (1 - _B + _B * length / average) for length in lengths]
        for numbers, frequencies in self._postings.values():
            idf = math.log(1 + (self._size - len(numbers) + 0.5) / (len(numbers) + 0.5))
            for place, number in enumerate(numbers):
                frequency = frequencies[place]
                frequencies[place] = idf * frequency / (frequency + norms[number])


def terms_of(text: str) -> list[str]:
    """Cut a text into terms: words without case, accents and plurals, and the parts of names in ``camelCase``.

    Words end at everything that is no letter or digit, so names are split at ``_``, ``-`` and ``.``. Chinese and
    Japanese, which have no blanks, are cut into overlapping pairs of characters.
    """
    found: list[str] = []
    for word in _WORD.findall(text):
        found += _kept(word) if len(word) <= _LONGEST_KEPT else _terms_of_word(word)
    return found


def _terms_of_word(word: str) -> tuple[str, ...]:
    if word.isascii():
        parts = _CAMEL.split(word)
        # "GitHub" is found by "github", "git" and "hub".
        return tuple(map(_singular, [word.lower(), *map(str.lower, parts)] if len(parts) > 1 else [word.lower()]))
    spread = unicodedata.normalize("NFKD", word.casefold())
    plain = unicodedata.normalize("NFKC", "".join(each for each in spread if not unicodedata.combining(each)))
    found: list[str] = []
    for number, piece in enumerate(_UNSPACED.split(plain)):
        if number % 2 and len(piece) > 1:
            found += (piece[start : start + 2] for start in range(len(piece) - 1))
        elif piece:
            found.append(_singular(piece))
    return tuple(found)


_kept = lru_cache(maxsize=50_000)(_terms_of_word)


def _singular(word: str) -> str:
    """Take a plural's ending off (the S stemmer of Harman, "How Effective Is Suffixing?", 1991)."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return f"{word[:-3]}y"
    return word[:-1]
