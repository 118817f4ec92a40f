"""Caches SSL contexts, one per TLS settings, and makes them again when their files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any, Final

from mcp_manager.config import TlsConfig
from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.tls_files import FileStamps, load_identity, load_trust, stamps_of

__all__ = ["TlsContexts", "UnusableTlsError"]

logger: logging.Logger = logging.getLogger(__name__)

# A fleet has few; unused ones must not accumulate.
_MOST: Final = 256


class UnusableTlsError(OSError):
    """A file that TLS needs cannot be used; the text names the field, ``hint`` says what to do."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


class ObservedHandshake(ssl.SSLObject):
    """Keep the contents of a refused certificate (subject, issuer, dates) on the error."""

    _sslobj: Any

    def do_handshake(self) -> None:
        """Run the handshake."""
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            # ssl has a public method from Python 3.13 on, but it returns only the bytes of the certificates.
            chain = getattr(self._sslobj, "get_unverified_chain", lambda: None)()
            error.certificates = [each.get_info() for each in chain or ()]  # type: ignore[attr-defined]
            raise


class TlsContexts:
    """Make and cache the SSL contexts of one manager."""

    def __init__(self) -> None:
        self._kept: dict[tuple[TlsConfig, bool], tuple[FileStamps, ssl.SSLContext]] = {}
        self._loading: dict[tuple[TlsConfig, bool], asyncio.Future[ssl.SSLContext]] = {}

    async def of(self, tls: TlsConfig, *, elsewhere: bool = False) -> ssl.SSLContext:
        """Return the context for these settings; if it is not cached, load it in a thread.

        Parameters
        ----------
        tls
            The settings of a server.
        elsewhere
            Whether it is for third parties that the server refers to. They are always verified, also against the
            system's store, and are not shown the client certificate.

        Raises
        ------
        UnusableTlsError
            A file is missing, or cannot be used.
        """
        key = tls, elsewhere
        stamps = stamps_of(tls)
        kept = self._kept.get(key)
        if kept is not None and kept[0] == stamps:
            return kept[1]
        loading = self._loading.get(key)
        if loading is None:
            loading = asyncio.get_running_loop().run_in_executor(None, _make, tls, elsewhere)
            self._loading[key] = loading
            loading.add_done_callback(lambda _: self._loading.pop(key, None))
        try:
            context = await asyncio.shield(loading)
        except FieldProblem as problem:
            failed = UnusableTlsError(f"{problem.path}: {problem.text}", problem.hint)
        else:
            self._keep(key, stamps, context)
            return context
        if kept is not None and None not in stamps:
            # Certificate and key are rarely replaced in the same moment, so the pair may not match for a while.
            logger.warning("%s; the previous files stay in use", failed)
            return kept[1]
        try:
            raise failed
        finally:
            # Its traceback holds this frame.
            del failed

    def drop_identities(self) -> None:
        """Drop the contexts with a private key when a server is removed; the other servers load theirs again."""
        for key in [each for each in self._kept if each[0].cert_file is not None]:
            del self._kept[key]

    def _keep(self, key: tuple[TlsConfig, bool], stamps: FileStamps, context: ssl.SSLContext) -> None:
        self._kept.pop(key, None)
        if len(self._kept) >= _MOST:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = stamps, context


def _make(tls: TlsConfig, elsewhere: bool) -> ssl.SSLContext:
    if not tls.verify and not elsewhere:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca_file is None or elsewhere:
        context = ssl.create_default_context()
        load_trust(context, tls, "tls")
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Certificates in the file are trust anchors even if they are not self-signed.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        load_trust(context, tls, "tls")
    if not elsewhere:
        load_identity(context, tls, "tls")
    context.set_alpn_protocols(["http/1.1"])
    context.sslobject_class = ObservedHandshake
    return context
