"""One snapshot of several workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["merged_snapshot"]

_SUMS: Final = ("inflight", "waiting", "window_calls", "window_failures")
_SUMS_OF_GATEWAY: Final = ("sessions", "streams", "requests")


def merged_snapshot(
    own: dict[str, Any], others: Mapping[int, dict[str, Any]], owner_of_program: Callable[[str], int | None]
) -> dict[str, Any]:
    """Return what several workers show as one.

    A program is shown by the worker that runs it. Of a server over HTTP, each worker has sessions of its own: its
    instances are those of this worker, and its calls are counted together.

    Parameters
    ----------
    own
        The snapshot of this worker.
    others
        Those of its siblings, by their numbers.
    owner_of_program
        Returns which worker runs the program of a server; ``None`` if it is no program.
    """
    by_id = {number: {each["id"]: each for each in shown["servers"]} for number, shown in others.items()}
    servers = []
    for each in own["servers"]:
        server_id = each["id"]
        owner = owner_of_program(server_id)
        if owner is not None:
            servers.append(by_id.get(owner, {}).get(server_id, each))
            continue
        seen = [each, *(shown[server_id] for shown in by_id.values() if server_id in shown)]
        servers.append({**each, **{name: sum(one[name] for one in seen) for name in _SUMS}})
    gateways = [own["gateway"], *(shown["gateway"] for shown in others.values())]
    gateway = {**own["gateway"], **{name: sum(one[name] for one in gateways) for name in _SUMS_OF_GATEWAY}}
    # Each worker reads the file by itself.
    gateway["config_problem"] = next((found for one in gateways if (found := one["config_problem"])), None)
    return {**own, "servers": servers, "gateway": gateway}
