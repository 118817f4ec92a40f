"""Sends OTLP requests to a collector, and tells what became of them."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
import zlib
from email.utils import parsedate_to_datetime
from enum import Enum
from random import uniform
from typing import Any, Final

import aiohttp

from mcp_manager.telemetry.environment import Destination

__all__ = ["Fate", "Sender"]

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_TOO_LARGE: Final = 413
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_MOST_REPLY: Final = 64 * 1024


class Fate(Enum):
    """What became of a request."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    UNAVAILABLE = "unavailable"
    UNREACHABLE = "unreachable"
    NO_ANSWER = "no_answer"


class Sender:
    """Post requests, and repeat them within their time as long as the collector only says that it is busy.

    Parameters
    ----------
    destination
        Where they go.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._headers = {
            **destination.headers,
            "Content-Type": "application/x-protobuf",
            "User-Agent": "OTel-OTLP-Exporter-Python/mcp-manager",
        }
        if destination.compression != "none":
            self._headers["Content-Encoding"] = destination.compression
        # Why the latest request failed, without anything that may be secret.
        self.reason: str = ""

    def session(self) -> aiohttp.ClientSession:
        """Return a session for some requests; raises :class:`OSError` if a certificate cannot be read."""
        tls: ssl.SSLContext | bool = True
        if self._destination.certificate or self._destination.client_certificate:
            tls = ssl.create_default_context(cafile=self._destination.certificate)
            if self._destination.client_certificate:
                tls.load_cert_chain(self._destination.client_certificate, self._destination.client_key)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), trust_env=True)

    async def send(self, session: aiohttp.ClientSession, body: bytes, ends_at: float | None = None) -> tuple[Fate, int]:
        """Send one request; return what became of it, and how many of its points the collector rejected.

        Parameters
        ----------
        session
            What :meth:`session` returned.
        body
            The request.
        ends_at
            When the program ends, in monotonic seconds: nobody waits for a collector that cannot be reached then.
            ``None`` if it goes on.
        """
        ends = time.monotonic() + self._destination.timeout_s
        if ends_at is not None:
            ends = min(ends, ends_at)
        body = self._compressed(body)
        pause_s = _FIRST_PAUSE_S
        while True:
            rest_s = ends - time.monotonic()
            if rest_s <= 0:
                self.reason = "no time was left"
                return Fate.NO_ANSWER, 0
            fate, rejected, wait_s = await self._post(session, body, rest_s)
            if fate not in (Fate.UNAVAILABLE, Fate.UNREACHABLE) or (ends_at is not None and wait_s is None):
                return fate, rejected
            wait_s = pause_s * uniform(0.8, 1.2) if wait_s is None else wait_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if wait_s >= ends - time.monotonic():
                return fate, 0
            await asyncio.sleep(wait_s)

    async def _post(self, session: aiohttp.ClientSession, body: bytes, rest_s: float) -> tuple[Fate, int, float | None]:
        try:
            async with session.post(
                self._destination.url,
                data=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=rest_s),
                allow_redirects=False,
            ) as response:
                status = response.status
                reply = await response.content.read(_MOST_REPLY) if status == 200 else b""
                retry_after = response.headers.get("Retry-After")
        except TimeoutError:
            self.reason = "no answer in time"
            return Fate.NO_ANSWER, 0, None
        except (aiohttp.ClientConnectorError, aiohttp.ClientConnectorDNSError) as error:
            self.reason = type(error).__name__
            return Fate.UNREACHABLE, 0, None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.reason = type(error).__name__
            return Fate.NO_ANSWER, 0, None
        if 200 <= status < 300:
            return Fate.ACCEPTED, _rejected(reply), None
        self.reason = f"HTTP {status}"
        if status in _RETRYABLE:
            return Fate.UNAVAILABLE, 0, _seconds(retry_after)
        return (Fate.TOO_LARGE if status == _TOO_LARGE else Fate.REFUSED), 0, None

    def _compressed(self, body: bytes) -> bytes:
        if self._destination.compression == "gzip":
            return gzip.compress(body, compresslevel=6)
        return zlib.compress(body) if self._destination.compression == "deflate" else body


def _rejected(reply: bytes) -> int:
    """Return how many points an answer says were rejected; 0 if it cannot be read."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - an optional package
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415
        ExportMetricsServiceResponse,
    )

    answer: Any = ExportMetricsServiceResponse()
    try:
        answer.ParseFromString(reply)
    except DecodeError:
        return 0
    return max(int(answer.partial_success.rejected_data_points), 0)


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds that ``Retry-After`` asks for; ``None`` if it does not, or cannot be read."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after[:9])
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
