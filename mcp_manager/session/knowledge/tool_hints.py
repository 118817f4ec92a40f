"""The tools of one server that are annotated as safe to repeat (2025-03-26, server/tools)."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ToolHints"]


class ToolHints:
    """Remember which tools the last complete list annotates with ``readOnlyHint`` or ``idempotentHint``.

    Callers decide whether to trust the server's annotations.
    """

    __slots__ = ("_repeatable", "epoch")

    def __init__(self) -> None:
        self._repeatable: frozenset[str] = frozenset()
        # Raised by forget(), because a list that was requested before is outdated after it.
        self.epoch: int = 0

    def learn(self, tools: Iterable[tuple[str, bool]], epoch: int) -> None:
        """Replace everything by the annotations of a complete list, unless :meth:`forget` was called since its request.

        Parameters
        ----------
        tools
            The name of every tool, and whether it is annotated. If a name appears twice, both must be annotated.
        epoch
            The value of ``epoch`` when the list was requested.
        """
        if epoch != self.epoch:
            return
        repeatable: set[str] = set()
        others: set[str] = set()
        for name, is_repeatable in tools:
            (repeatable if is_repeatable else others).add(name)
        self._repeatable = frozenset(repeatable - others)

    def forget(self) -> None:
        """Forget all annotations, because the server says that its tools have changed."""
        self._repeatable = frozenset()
        self.epoch += 1

    def is_repeatable(self, tool: str) -> bool:
        """Tell whether a tool is annotated as safe to repeat."""
        return tool in self._repeatable
