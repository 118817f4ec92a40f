"""Whether a server has fallen silent: probes unanswered in a row, and nothing else that shows it to be alive."""

from __future__ import annotations

from mcp_manager.health.life_signs import messages_written
from mcp_manager.servers.instance import Instance

__all__ = ["Silence"]


class Silence:
    """Count the probes that one session has left unanswered while its server wrote no other message.

    ``probes`` is how many there were in a row, ``has_answered`` tells whether the session ever answered a ping, and
    ``is_asked_for_lists`` that its server answers a list and no ping.
    """

    __slots__ = ("_generation", "_messages", "has_answered", "is_asked_for_lists", "probes")

    def __init__(self) -> None:
        self._generation = -1
        self._messages = 0
        self.probes = 0
        self.has_answered = False
        self.is_asked_for_lists = False

    def probed(self, instance: Instance) -> None:
        """Take note that a probe is about to be sent; a session that is new has a clean record."""
        if instance.generation != self._generation:
            self._generation = instance.generation
            self._messages = messages_written(instance)
            self.probes = 0
            self.has_answered = False
        elif messages_written(instance) != self._messages:
            # It was alive until now; the silence that counts begins with this probe.
            self._messages = messages_written(instance)
            self.probes = 0

    def answered(self, *, by_list: bool) -> None:
        """Take note that it was answered: a ping, or the list that was asked for in its place."""
        if not by_list:
            self.has_answered = True
        elif self.probes:
            self.is_asked_for_lists = True
        self.probes = 0

    def unanswered(self, instance: Instance) -> None:
        """Take note that it was not; any message since the last look is a sign of life."""
        if instance.generation != self._generation:
            return
        if messages_written(instance) != self._messages:
            self._messages = messages_written(instance)
            self.probes = 0
        else:
            self.probes += 1
