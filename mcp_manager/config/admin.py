"""The configuration of the admin API of the gateway, and of its page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Unpack

from mcp_manager.config._problem import FieldProblem, at
from mcp_manager.config._struct import Settings
from mcp_manager.config.listen_address import parse_listen_address

if TYPE_CHECKING:
    from mcp_manager.config.fields.admin import AdminFields

__all__ = ["AdminConfig", "check_admin"]

_SHORTEST_TOKEN: Final = 32
_LONGEST_TOKEN: Final = 4_096


class AdminConfig(Settings, frozen=True, kw_only=True):
    """Configure the admin API of the gateway, ``/api/v1``, and its page, ``/ui``.

    Whoever may use it may run any program as the user of the gateway: deploying a server starts its command.

    Parameters
    ----------
    listen
        A separate address, in the forms of ``serve.listen``. Then the API and the page are only there, and
        ``/health``, ``/ready`` and ``/metrics`` are there too, without authentication. Default: the address of
        the gateway.
    token
        The secret that clients send as ``Authorization: Bearer``: 32 to 4,096 printable ASCII characters
        without spaces. Default: none; then the principals in ``operators`` of ``serve.auth`` may use the API.
    ui
        Whether to serve the page ``/ui``.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[AdminFields]) -> None: ...

    listen: str | None = None
    token: str | None = None
    ui: bool = True


def check_admin(config: AdminConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first value that cannot work."""
    if config.listen is not None:
        address = parse_listen_address(config.listen, at(path, "listen"))
        if address.is_inherited:
            way_out = "give an address, or leave it out and let systemd pass the socket of serve.listen"
            raise FieldProblem(at(path, "listen"), "cannot be a socket of systemd", way_out)
    if config.token is None:
        return
    if not _SHORTEST_TOKEN <= len(config.token) <= _LONGEST_TOKEN:
        text = f"expected {_SHORTEST_TOKEN} to {_LONGEST_TOKEN} characters, got {len(config.token)}"
        raise FieldProblem(at(path, "token"), text, "make one with: openssl rand -hex 32")
    if not all("!" <= char <= "~" for char in config.token):
        text = "has spaces or characters that are not printable ASCII"
        raise FieldProblem(at(path, "token"), text, "make one with: openssl rand -hex 32")
