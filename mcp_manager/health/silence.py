"""Detects servers that stopped answering: probes unanswered in a row, without any other sign of life."""

from __future__ import annotations

from mcp_manager.health.life_signs import messages_written
from mcp_manager.servers.instance import Instance

__all__ = ["Silence"]


class Silence:
    """Count the probes that a session has left unanswered in a row while its server sent no other message.

    Attributes
    ----------
    probes
        How many probes in a row were not answered.
    has_answered
        Whether the session ever answered a ping.
    is_asked_for_lists
        Whether its server answers lists but no pings.
    """

    __slots__ = ("_generation", "_messages", "has_answered", "is_asked_for_lists", "probes")

    def __init__(self) -> None:
        self._generation = -1
        self._messages = 0
        self.probes: int = 0
        self.has_answered: bool = False
        self.is_asked_for_lists: bool = False

    def probed(self, instance: Instance) -> None:
        """Note that a probe is about to be sent; a new session starts without unanswered probes."""
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
        """Note that the probe was answered: a ping, or the list that was requested in its place."""
        if not by_list:
            self.has_answered = True
        elif self.probes:
            self.is_asked_for_lists = True
        self.probes = 0

    def unanswered(self, instance: Instance) -> None:
        """Note that the probe was not answered; any other message since the last look is a sign of life."""
        if instance.generation != self._generation:
            return
        if messages_written(instance) != self._messages:
            self._messages = messages_written(instance)
            self.probes = 0
        else:
            self.probes += 1
