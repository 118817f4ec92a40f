"""Affinity: calls with the same key stay on one instance, and so on the session that keeps their state."""

from __future__ import annotations

import weakref
from typing import Final, Generic, Literal, TypeVar

import msgspec

from mcp_manager._core.records import EXCLUDED, Backend, Lease
from mcp_manager._core.router import Router
from mcp_manager.calls.call import Call, Choice
from mcp_manager.errors import InvalidRequestError, SessionLostError
from mcp_manager.servers.instance import Instance
from mcp_manager.session import Session
from mcp_manager.types import Rejection

__all__ = ["Affinity", "Leased", "Pin", "PinTable", "key_hash", "state_lost"]

Value = TypeVar("Value")

_HASH_BYTES: Final = 8
_OUT_OF_ORDER: Final = (Rejection.CIRCUIT_OPEN, Rejection.NO_INSTANCE)


class PinTable(Generic[Value]):
    """Remember values by key; drop those not used for ``ttl_ns``, and the least recently used above ``capacity``.

    Parameters
    ----------
    capacity
        How many values are kept, at least 1.
    ttl_ns
        How many nanoseconds a value is kept after its last use.
    """

    def __init__(self, capacity: int, ttl_ns: int) -> None:
        self.capacity = capacity
        self.ttl_ns = ttl_ns
        # Ordered by last use, and so by expiry.
        self._entries: dict[object, tuple[Value, int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: object, now_ns: int) -> Value | None:
        """Return the value of a key and keep it for another ``ttl_ns``; ``None`` if it is unknown or has expired."""
        entry = self._entries.pop(key, None)
        if entry is None or now_ns - entry[1] >= self.ttl_ns:
            return None
        self._entries[key] = (entry[0], now_ns)
        return entry[0]

    def put(self, key: object, value: Value, now_ns: int) -> None:
        """Set the value of a key."""
        self._entries.pop(key, None)
        while self._entries:
            oldest = next(iter(self._entries))
            if len(self._entries) < self.capacity and now_ns - self._entries[oldest][1] < self.ttl_ns:
                break
            del self._entries[oldest]
        self._entries[key] = (value, now_ns)

    def drop(self, key: object) -> None:
        """Forget a key."""
        self._entries.pop(key, None)


class Pin:
    """The binding of a key to one session of an instance.

    Parameters
    ----------
    hash_of_key
        64 bits, see :func:`key_hash`; kept as ``hash``.
    instance
        The instance that takes the calls of the key.
    is_hard
        Whether the affinity is ``hard``.
    is_callers
        Whether the key is of calls for a :class:`~mcp_manager.Caller`.

    Attributes
    ----------
    generation
        The generation of the session, ``None`` until there is one.
    is_used
        Whether a call of the key may have left state in the session.
    """

    __slots__ = ("_instance", "generation", "hash", "is_callers", "is_hard", "is_used")

    def __init__(self, hash_of_key: int, instance: Instance, is_hard: bool, is_callers: bool = False) -> None:
        # Weak: the table must not keep a removed instance alive.
        self._instance = weakref.ref(instance)
        self.hash: int = hash_of_key
        self.is_hard: bool = is_hard
        self.is_callers: bool = is_callers
        self.generation: int | None = None
        self.is_used: bool = False

    @property
    def is_binding(self) -> bool:
        """Whether the loss of the session must be reported: the affinity is hard, and a call has used the session."""
        return self.is_hard and self.is_used

    def backend(self) -> Backend | None:
        """Return the backend of the instance; ``None`` if the instance is gone or the session is lost or not coming."""
        instance = self._instance()
        if instance is None or instance.backend is None or instance.backend.availability == EXCLUDED:
            return None
        if self.is_callers:
            # Callers have sessions of their own, whatever becomes of that of the instance.
            is_usable = True
        elif self.generation is None:
            is_usable = instance.session is not None or instance.is_connecting
        else:
            is_usable = self.generation == instance.generation
        return instance.backend if is_usable else None

    def settle(self, instance: Instance, session: Session) -> None:
        """Bind the key to the session that its call uses, unless the instance has already replaced it."""
        if instance.session is session and not self.is_callers:
            self.generation = instance.generation

    def release(self) -> None:
        """Unbind the key from its lost session, whose loss is reported to the caller."""
        self.generation = None
        self.is_used = False


class Leased(msgspec.Struct, frozen=True, eq=False):
    """A lease, and the pin that the call binds to its session; ``None`` without affinity."""

    lease: Lease
    pin: Pin | None = None


class Affinity:
    """Choose instances for calls with a key.

    Parameters
    ----------
    router
        Picks the first instance of a key, by weighted rendezvous hashing if the server's policy is ``consistent``.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        # By server id. Kept across redeployments, so that keys with hard affinity report their lost sessions.
        self._tables: dict[str, PinTable[Pin]] = {}

    def lease(self, call: Call, now_ns: int, random: int, choice: Choice) -> Leased:
        """Lease an instance for a call with a key; see :class:`mcp_manager.config.BalancingConfig`.

        Parameters
        ----------
        call
            The call, whose ``where.key`` is not ``None``.
        now_ns
            The time of the clock, in nanoseconds.
        random
            64 uniform random bits.
        choice
            What the router considers if the key is not bound to an instance.

        Raises
        ------
        SessionLostError
            The affinity is ``hard``, and the session of this key is gone; the next call with the key uses a new one.
        InvalidRequestError
            The key is not a string.
        KeyError
            The server was removed.
        """
        key, server_id = call.where.key, call.server_id
        if not isinstance(key, str):
            raise InvalidRequestError(f"Invalid request: key must be a string, not {type(key).__name__}")
        balancing = call.supervisor.config.balancing
        if balancing.affinity == "none":
            return Leased(self._pick(call, now_ns, random, key_hash(key), choice))
        table = self._table(server_id, balancing.affinity_keys, round(balancing.affinity_ttl_s * 1e9))
        pin = table.get(key, now_ns)
        if pin is not None:
            pin.is_hard = balancing.affinity == "hard"
            backend = pin.backend()
            if backend is None and pin.is_binding:
                table.drop(key)
                raise state_lost(server_id, "not_sent")
            if backend is not None and (pin.is_binding or backend is not choice.avoid):
                lease = self._router.pick_on(backend, call.method, now_ns, waited=choice.waited)
                # A busy instance still has the session; one that admits no calls at all is replaced by another.
                if pin.is_binding or lease.rejection not in _OUT_OF_ORDER:
                    return Leased(lease, pin)
        hashed = pin.hash if pin is not None else key_hash(key)
        lease = self._pick(call, now_ns, random, hashed, choice)
        if lease.backend is None:
            return Leased(lease)
        instance: Instance = lease.payload
        session = instance.session
        if session is not None and session.is_stateless and call.caller is None:
            # A stateless session keeps nothing that later calls could need.
            table.drop(key)
            return Leased(lease)
        pin = Pin(hashed, instance, balancing.affinity == "hard", call.caller is not None)
        if session is not None:
            pin.settle(instance, session)
        table.put(key, pin, now_ns)
        return Leased(lease, pin)

    def _pick(self, call: Call, now_ns: int, random: int, hashed: int, choice: Choice) -> Lease:
        avoid, waited, again = choice
        return self._router.pick(call.server_id, call.method, now_ns, random, hashed, avoid, waited=waited, again=again)

    def forget(self, server_id: str) -> None:
        """Forget the keys of a server that was removed."""
        self._tables.pop(server_id, None)

    def _table(self, server_id: str, capacity: int, ttl_ns: int) -> PinTable[Pin]:
        table = self._tables.get(server_id)
        if table is None:
            table = self._tables[server_id] = PinTable(capacity, ttl_ns)
        table.capacity, table.ttl_ns = capacity, ttl_ns
        return table


def key_hash(key: str) -> int:
    """Return a 64-bit hash of a key: the same in every process, and never 0, which means no key."""
    from hashlib import blake2b  # noqa: PLC0415 - not needed to import the package

    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big") or 1


def state_lost(server_id: str, delivery: Literal["not_sent", "rejected"]) -> SessionLostError:
    """Make the error for a key with hard affinity whose session is lost."""
    return SessionLostError(
        "the session of this key is lost, with the state that the server kept in it",
        server_id=server_id,
        delivery=delivery,
        retryable=False,
        hint='start over: the next call with the key uses a new session; affinity = "soft" does not raise this',
    )
