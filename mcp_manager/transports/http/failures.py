"""Makes the errors of failed and broken connections to one HTTP endpoint."""

from __future__ import annotations

import time
from typing import Final

import aiohttp
from yarl import URL

from mcp_manager._core.http_message import EXPIRED, MALFORMED, OVERSIZE, STOPPED, UNANSWERED, Exchange, WireError
from mcp_manager.errors import CallError, ConnectError, ConnectionLostError, DeadlineExceededError
from mcp_manager.transports.containment import is_resource_exhaustion
from mcp_manager.transports.http.connections.failures import Failure, failure_of, underlying
from mcp_manager.transports.http.options import HttpOptions
from mcp_manager.transports.http.reply import ReplyReader
from mcp_manager.transports.http.resending import is_unsent
from mcp_manager.transports.http.status import origin

__all__ = ["HttpFailures"]

_NO_CONNECTION: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
# The first bytes of a TLS alert, as aiohttp and the wire quote a response that is not HTTP.
_TLS_ALERT: Final = r"\x15\x03"
_SPEAKS_TLS: Final = Failure("the server speaks TLS there", "write https:// in url", passing=False, refused=True)
_CLOSED: Final = Failure("the server closed it")


class HttpFailures:
    """Make the errors of one endpoint's connections.

    Parameters
    ----------
    options
        The options of the transport.
    """

    __slots__ = ("_at", "_connect_s", "_lag", "_route", "_server_id")

    def __init__(self, options: HttpOptions) -> None:
        self._server_id = options.server_id
        self._route = options.route
        self._lag = options.pool.lag
        self._connect_s = options.connect_timeout_s
        self._at = f" at {options.endpoint}" if options.endpoint is not None else str(options.route)

    def of(
        self, error: aiohttp.ClientError | OSError, url: URL, exchange: Exchange, *, first: bool
    ) -> CallError | None:
        """Return the error for a failed aiohttp request, ``None`` if the response was not HTTP.

        Parameters
        ----------
        error
            What aiohttp raised.
        url
            The endpoint.
        exchange
            The request.
        first
            Whether the server has never answered: then a wrong setting is a likely cause, and the hint says so.
        """
        explained = self._meaning(error, url, exchange, first=first)
        if explained is not None and not exchange.sent:
            explained.is_local = self._is_local(error)
        return explained

    def of_wire(self, error: WireError, url: URL, exchange: Exchange, reader: ReplyReader, *, first: bool) -> CallError:
        """Return the error for a failure on a lane; ``reader`` makes those of malformed replies, the rest is as for :meth:`of`."""
        kind = error.kind
        if kind == MALFORMED:
            return self.of_malformed(error, url) or reader.broken(f"the reply is not valid HTTP: {error.detail}")
        if kind == OVERSIZE:
            return reader.oversize(error.size)
        if kind == UNANSWERED:
            return reader.unanswered(error.detail)
        if kind == EXPIRED:
            return self.of_expired(exchange)
        if kind == STOPPED:
            return ConnectionLostError(
                "the server was stopped during the call",
                server_id=self._server_id,
                delivery="unknown" if exchange.sent else "not_sent",
            )
        if is_unsent(error):
            exchange.sent = False
        return self.of_lost(error, url, exchange, first=first)

    def of_expired(self, exchange: Exchange) -> DeadlineExceededError:
        """Return the error for a missed deadline; it is local if a blocked event loop used up the time."""
        error = DeadlineExceededError(
            "no reply within the deadline",
            server_id=self._server_id,
            delivery="unknown" if exchange.sent else "not_sent",
        )
        self._lag.excuse(error, exchange.began_ns, exchange.deadline_ns)
        return error

    def _is_local(self, error: BaseException) -> bool:
        """Return whether this process is the reason that a connection failed."""
        if isinstance(error, TimeoutError):
            # The server is excused if the loop was blocked for more than half of the timeout. A loop that is blocked
            # only now and then must not excuse a dead server for ever.
            return self._lag.lost_since(time.monotonic() - 2 * self._connect_s) > self._connect_s / 2
        return is_resource_exhaustion(underlying(error))

    def _meaning(
        self, error: aiohttp.ClientError | OSError, url: URL, exchange: Exchange, *, first: bool
    ) -> CallError | None:
        failure = failure_of(error, self._route, tls=url.scheme == "https")
        if isinstance(error, aiohttp.ClientHttpProxyError) and error.status != 407 and exchange.sent:
            # The proxy has the request, so the server may have it, too.
            return self._lost(failure, url, exchange)
        if isinstance(error, _NO_CONNECTION) or not exchange.sent:
            return self._unconnected(failure, url)
        if isinstance(error, aiohttp.ClientResponseError):
            return self._unconnected(_SPEAKS_TLS, url) if _TLS_ALERT in error.message else None
        return self._broken(failure, url, exchange, first=first)

    def of_malformed(self, error: WireError, url: URL) -> CallError | None:
        """Return the error if a wire has received a TLS alert in place of HTTP, else ``None``."""
        return self._unconnected(_SPEAKS_TLS, url) if _TLS_ALERT in error.detail else None

    def of_lost(self, error: WireError, url: URL, exchange: Exchange, *, first: bool) -> CallError:
        """Return the error for a broken wire; the parameters as for :meth:`of`."""
        cause = error.__cause__
        failure = _CLOSED if cause is None else failure_of(cause, self._route)
        return self._broken(failure, url, exchange, first=first)

    def _broken(self, failure: Failure, url: URL, exchange: Exchange, *, first: bool) -> CallError:
        if exchange.head is not None:
            return self._lost(failure, url, exchange)
        if failure.refused:
            return self._unconnected(failure, url)
        return self._lost(failure, url, exchange, self._first_guess(url) if first else "")

    def _first_guess(self, url: URL) -> str:
        """Return the likely cause if a server closes the connection before it has ever answered, as a hint."""
        if url.scheme == "http":
            return "if the server speaks TLS there, write https:// in url"
        if self._route.tls.cert_file is None:
            return "if the server wants a client certificate, set tls.cert_file and tls.key_file"
        return "the server may refuse the certificate of tls.cert_file"

    def _unconnected(self, failure: Failure, url: URL) -> ConnectError:
        return ConnectError(
            f"cannot connect to {origin(url)}{self._at}: {failure.reason}",
            server_id=self._server_id,
            delivery="rejected" if failure.refused else "not_sent",
            retryable=failure.passing,
            hint=failure.hint,
        )

    def _lost(self, failure: Failure, url: URL, exchange: Exchange, hint: str = "") -> ConnectionLostError:
        return ConnectionLostError(
            f"the connection to {origin(url)} broke before the reply: {failure.reason}",
            server_id=self._server_id,
            delivery="unknown" if exchange.sent else "not_sent",
            hint=failure.hint or hint,
        )
