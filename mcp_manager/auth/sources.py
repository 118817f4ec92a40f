"""Where credentials that change come from: a file, a program, or a function of the application."""

from __future__ import annotations

import asyncio
import inspect
import os
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from mcp_manager.config import AuthConfig, ServerConfig
from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.header_fields import check_field_value, check_headers, check_token, without
from mcp_manager.runtime.command import CommandError, run_command

__all__ = [
    "CredentialProvider",
    "Given",
    "Programs",
    "Source",
    "SourceError",
    "asked",
    "configured_source",
    "provided_source",
]

Given = str | Mapping[str, str]
CredentialProvider = Callable[[], Given | Awaitable[Given]]
"""Returns a bearer token, or header fields by name; it may be a coroutine function. A plain function runs in a thread."""

_MOST_BYTES: Final = 65_536
_TIMEOUT_S: Final = 30.0
_MOST_READS: Final = 5
_REWRITTEN_S: Final = 0.05
_RUN_BY_HAND: Final = "run it by hand to see why; what it writes is not shown, because it may be secret"
# Programs that run at a time, over all servers of a manager.
_MOST_PROGRAMS: Final = 16


class SourceError(Exception):
    """A source gave no usable credentials; the text quotes nothing of what it gave. ``hint`` says what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class TokenFile:
    """A file with a token, which is read again when it was replaced or written.

    Symbolic links are followed each time, so that a directory of Kubernetes secrets, where only a link changes, works.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()

    @property
    def has_changed(self) -> bool:
        """Whether the file is another one, or was written, since it was last read; ``False`` if it is gone."""
        try:
            return _signature(os.stat(self._path)) != self._seen
        except (OSError, ValueError):
            return False

    async def read(self) -> str:
        """Return the text of the file without surrounding white space; raises :class:`SourceError`."""
        for _ in range(_MOST_READS):
            self._seen, data = await asyncio.to_thread(self._read)
            if data.strip():
                break
            # A program that writes the file in place has emptied it and not written the token yet.
            await asyncio.sleep(_REWRITTEN_S)
        return _text(data, "auth.token_file")

    def _read(self) -> tuple[tuple[int, ...], bytes]:
        try:
            # Non-blocking, because opening a named pipe would wait for a writer.
            number = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                about = os.fstat(number)
                if not stat.S_ISREG(about.st_mode):
                    raise SourceError("auth.token_file is not a regular file")
                data = os.read(number, _MOST_BYTES + 1)
            finally:
                os.close(number)
        except (OSError, ValueError) as error:
            raise SourceError(
                f"auth.token_file cannot be read ({type(error).__name__})", "check the path and its permissions"
            ) from None
        return _signature(about), data


class Programs:
    """Run programs that print credentials, a few at a time, with the server's id in their environment."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_MOST_PROGRAMS)

    async def output(self, server_id: str, argv: Sequence[str], what: str) -> bytes:
        """Return what a program prints, once it is its turn; raises :class:`SourceError`."""
        environment = {**os.environ, "MCP_SERVER_ID": server_id}
        async with self._slots:
            try:
                return await run_command(argv, environment=environment, timeout_s=_TIMEOUT_S, most_bytes=_MOST_BYTES)
            except CommandError as error:
                raise SourceError(f"{what} failed: {error}", _RUN_BY_HAND) from None


class Source:
    """The credentials of one server, read from where they are kept.

    Parameters
    ----------
    read
        Returns the header fields with the credentials; raises :class:`SourceError`.
    file
        The file among the places that it reads, ``None`` without one.
    is_costly
        Whether reading runs a program or a function of the application.
    """

    def __init__(
        self, read: Callable[[], Awaitable[dict[str, str]]], file: TokenFile | None = None, *, is_costly: bool
    ) -> None:
        self.read = read
        self.is_costly = is_costly
        self._file = file

    @property
    def is_watched(self) -> bool:
        """Whether it can tell without reading that the credentials have changed."""
        return self._file is not None

    @property
    def has_changed(self) -> bool:
        """Whether a file has changed since it was last read."""
        return self._file is not None and self._file.has_changed


def configured_source(server_id: str, config: ServerConfig, programs: Programs) -> Source | None:
    """Return the source that a configuration names, ``None`` if its credentials are fixed or by OAuth."""
    auth, fixed = config.auth, config.auth.request_header()
    if not auth.is_read and not config.headers_command:
        return None
    file = TokenFile(auth.token_file) if auth.token_file is not None else None

    async def read() -> dict[str, str]:
        fields: dict[str, str] = {}
        secret: str | None
        if config.headers_command:
            fields = _fields(await programs.output(server_id, config.headers_command, "headers_command"))
        if file is not None:
            secret = await file.read()
        elif auth.token_command:
            secret = _text(
                await programs.output(server_id, auth.token_command, "auth.token_command"), "auth.token_command"
            )
        else:
            secret = None
        if secret is not None:
            credential = dict([_credential(auth, secret)])
        else:
            credential = {} if fixed is None else dict([fixed])
        return {**without(fields, credential), **credential}

    return Source(read, file, is_costly=bool(auth.token_command or config.headers_command))


def provided_source(provide: CredentialProvider) -> Source:
    """Return a source that asks a function of the application."""

    return Source(lambda: asked(provide), is_costly=True)


async def asked(provide: CredentialProvider) -> dict[str, str]:
    """Return the header fields that a function of the application gives; raises :class:`SourceError`."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            is_async = inspect.iscoroutinefunction(provide) or inspect.iscoroutinefunction(
                getattr(provide, "__call__", None)  # noqa: B004 - not whether, but what it is
            )
            given = provide() if is_async else await asyncio.to_thread(provide)
            if inspect.isawaitable(given):
                given = await given
    except TimeoutError:
        raise SourceError(f"the credential provider failed or took longer than {_TIMEOUT_S:g} s") from None
    except Exception as error:
        # Its text may quote the credentials.
        raise SourceError(f"the credential provider raised {type(error).__name__}") from None
    return _given_headers(given)


def _given_headers(given: object) -> dict[str, str]:
    """Return the header fields for a bearer token, or for header fields; raises :class:`SourceError`."""
    if isinstance(given, str):
        try:
            check_token(given, "the token")
        except FieldProblem as problem:
            raise SourceError(f"{problem.path} {problem.text}", problem.hint) from None
        return {"Authorization": f"Bearer {given}"}
    if not isinstance(given, Mapping) or not all(
        isinstance(name, str) and isinstance(value, str) for name, value in given.items()
    ):
        raise SourceError("the credential provider must return a token or header fields by name, all of them text")
    return _checked(given, "the header fields")


def _checked(fields: Mapping[str, str], what: str) -> dict[str, str]:
    try:
        check_headers(fields, "")
    except FieldProblem as problem:
        where = f"{problem.path} " if problem.path else ""
        raise SourceError(f"{what} cannot be sent: {where}{problem.text}", problem.hint) from None
    return dict(fields)


def _credential(auth: AuthConfig, secret: str) -> tuple[str, str]:
    what = "auth.token_file" if auth.token_file is not None else "auth.token_command"
    try:
        (check_token if auth.type == "bearer" else check_field_value)(secret, what)
    except FieldProblem as problem:
        raise SourceError(f"what {what} gives {problem.text}", problem.hint) from None
    return auth.header_for(secret)


def _text(data: bytes, what: str) -> str:
    if len(data) > _MOST_BYTES:
        raise SourceError(f"{what} gives more than {_MOST_BYTES:,} bytes")
    text = data.decode("latin-1").strip()
    if not text:
        raise SourceError(f"{what} gives nothing")
    return text


def _fields(data: bytes) -> dict[str, str]:
    try:
        fields = msgspec.json.decode(data, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SourceError("headers_command does not print a JSON object of texts by name", _RUN_BY_HAND) from None
    return _checked(fields, "what headers_command prints")


def _signature(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size
