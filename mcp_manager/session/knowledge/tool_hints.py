"""Which tools of one server say of themselves that calling them twice does no harm (2025-03-26, server/tools)."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ToolHints"]


class ToolHints:
    """Keep which tools were annotated with ``readOnlyHint`` or ``idempotentHint`` when they were listed last.

    Whether the server is believed is for others to say.
    """

    __slots__ = ("_repeatable", "epoch")

    def __init__(self) -> None:
        self._repeatable: frozenset[str] = frozenset()
        # Told apart by it: a list that was asked for before :meth:`forget` says nothing of what is true after it.
        self.epoch = 0

    def learn(self, tools: Iterable[tuple[str, bool]], epoch: int) -> None:
        """Take what a complete list says in place of what was known.

        Parameters
        ----------
        tools
            Name, and whether it is annotated as repeatable, of every tool. Of a name that is listed twice, both must be.
        epoch
            ``self.epoch`` when the list was asked for.
        """
        if epoch != self.epoch:
            return
        repeatable: set[str] = set()
        others: set[str] = set()
        for name, is_repeatable in tools:
            (repeatable if is_repeatable else others).add(name)
        self._repeatable = frozenset(repeatable - others)

    def forget(self) -> None:
        """Know nothing any more: the server says that its tools have changed."""
        self._repeatable = frozenset()
        self.epoch += 1

    def is_repeatable(self, tool: str) -> bool:
        """Tell whether a tool is known to be annotated so."""
        return tool in self._repeatable
