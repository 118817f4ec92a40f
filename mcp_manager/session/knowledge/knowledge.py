"""Everything that is known about one server and outlives its sessions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.session.knowledge.eras import EraMemory
from mcp_manager.session.knowledge.kept_results import KeptResults
from mcp_manager.session.knowledge.mirrored_tools import MirroredTools
from mcp_manager.session.knowledge.output_schemas import OutputSchemas
from mcp_manager.session.knowledge.peer_faults import PeerFaults
from mcp_manager.session.knowledge.response_cache import ResponseCache
from mcp_manager.session.knowledge.subscriptions import Subscriptions
from mcp_manager.session.knowledge.tool_hints import ToolHints

__all__ = ["Knowledge"]


class Knowledge:
    """What the sessions of one server have learned, and what callers have subscribed to.

    Each part is made on first use, because most servers of a large fleet are never called.

    Parameters
    ----------
    server_id, config
        The server and its configuration.
    secrets
        The credentials to mask where texts of the server are quoted.
    clock
        Monotonic nanoseconds.
    listened
        The methods for which the application has a handler.
    began
        ``began(server_id, kind)``: see :class:`~mcp_manager.session.knowledge.subscriptions.Subscriptions`.
    """

    __slots__ = (
        "_began",
        "_cache",
        "_clock",
        "_config",
        "_eras",
        "_faults",
        "_hints",
        "_kept",
        "_listened",
        "_mirrored",
        "_outputs",
        "_secrets",
        "_server_id",
        "_subscriptions",
        "log_level",
    )

    def __init__(
        self,
        server_id: str,
        config: ServerConfig,
        secrets: Secrets,
        clock: Callable[[], int],
        listened: Collection[str],
        began: Callable[[str, str], None] | None,
    ) -> None:
        self._server_id = server_id
        self._config = config
        self._secrets = secrets
        self._clock = clock
        self._listened = listened
        self._began = began
        self._eras: EraMemory | None = None
        self._faults: PeerFaults | None = None
        self._cache: ResponseCache | None = None
        self._subscriptions: Subscriptions | None = None
        self._mirrored: MirroredTools | None = None
        self._outputs: OutputSchemas | None = None
        self._hints: ToolHints | None = None
        self._kept: KeptResults | None = None
        # The minimum level of log messages, None if no caller has set one.
        self.log_level: str | None = None

    @property
    def eras(self) -> EraMemory:
        """The era that each of its endpoints speaks."""
        if self._eras is None:
            self._eras = EraMemory()
        return self._eras

    @property
    def faults(self) -> PeerFaults:
        """The rules that it broke."""
        if self._faults is None:
            self._faults = PeerFaults(self._server_id, self._clock, self._secrets)
        return self._faults

    @property
    def fault_counts(self) -> dict[str, int]:
        """How often it broke a rule, by kind of fault."""
        return {} if self._faults is None else dict(self._faults.counts)

    @property
    def is_flooding(self) -> bool:
        """Whether it sends more than there is time to read; see :attr:`PeerFaults.is_flooding`."""
        return self._faults is not None and self._faults.is_flooding

    @property
    def cache(self) -> ResponseCache:
        """The cache of its results."""
        if self._cache is None:
            self._cache = ResponseCache(self._clock, enabled=self._config.cache)
        return self._cache

    @property
    def subscriptions(self) -> Subscriptions:
        """The notifications that are wanted from it."""
        if self._subscriptions is None:
            began = None if self._began is None else partial(self._began, self._server_id)
            self._subscriptions = Subscriptions(self._listened, began)
        return self._subscriptions

    @property
    def mirrored(self) -> MirroredTools:
        """The arguments of its tools that are also sent as header fields."""
        if self._mirrored is None:
            self._mirrored = MirroredTools(self.faults)
        return self._mirrored

    @property
    def outputs(self) -> OutputSchemas:
        """The output schemas of its tools."""
        if self._outputs is None:
            self._outputs = OutputSchemas(self.faults, self._clock)
        return self._outputs

    @property
    def hints(self) -> ToolHints:
        """The annotations of its tools."""
        if self._hints is None:
            self._hints = ToolHints()
        return self._hints

    @property
    def kept(self) -> KeptResults | None:
        """Its last good results, ``None`` if the configuration keeps none."""
        if self._kept is None and self._config.fallback.stale_s > 0:
            self._kept = KeptResults()
        return self._kept

    @property
    def is_subscribed(self) -> bool:
        """Whether resources of the server are subscribed to."""
        return self._subscriptions is not None and bool(self._subscriptions.wanted.uris)

    def share(self, other: Knowledge) -> None:
        """Know what another knowledge of the same server has that belongs to nobody: eras, and the log level."""
        self._eras = other.eras.without_answers()
        self.log_level = other.log_level

    def succeed(self, before: Knowledge) -> None:
        """Take over the subscriptions and the log level from the knowledge under the previous configuration."""
        self.log_level = before.log_level
        self._subscriptions = before.subscriptions

    def forget_instance(self, number: int) -> None:
        """Forget which notifications an instance received, once it is gone."""
        if self._subscriptions is not None:
            self._subscriptions.heard.pop(number, None)
