"""What a command line asks for, as its verb receives it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["CommandLine", "Options"]


class CommandLine(str):
    """The words after ``--``: a program with its arguments, in place of a file."""

    __slots__ = ("argv",)
    argv: tuple[str, ...]

    def __new__(cls, argv: Sequence[str]) -> CommandLine:
        """Join the words for display."""
        made = super().__new__(cls, shlex.join(argv))
        made.argv = tuple(argv)
        return made


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments and options of one verb; each verb uses those that it declares.

    Parameters
    ----------
    verb
        The verb.
    config
        A file, a URL, or a :class:`CommandLine`; ``None`` for verbs without one.
    words
        The arguments after it, such as a server's id.
    json, quiet
        Whether to print JSON, and whether to print nothing but results and errors.
    timeout
        Seconds for a call; ``None`` for the server's own setting.
    log_level, log_format
        From which level on to show the manager's log (``None``: only warnings about the configuration), and how.
    environment
        Variables of a command line's program: ``NAME`` passes one on, ``NAME=VALUE`` sets one.
    lenient
        Whether to leave out the servers of a file that are wrong, instead of refusing the file.
    output, force
        The file to write, and whether it may be overwritten.
    check
        Of pins: whether to say what differs only, and write nothing.
    sources, project
        The files of clients to import (empty: those that are found), and the folder of a project to search.
    port, era, sse, stdio, tools, faults
        Of a fault server: the port to listen on, how it is spoken to, whether it replies with event streams, whether it is a
        program on its standard streams, the names of its tools, and its first faults as JSON.
    listen, workers, demo
        Of the gateway: the address in place of the configured one, how many processes serve it, and whether it serves the
        servers of the demo.
    action, name, file, scopes, claims, expires
        Of API keys: what to do (``new``, ``list`` or ``revoke``), whose key, in which file; and of a new one its scopes, its
        claims as ``NAME=VALUE``, and when it expires.
    """

    verb: str = ""
    config: str | None = None
    words: tuple[str, ...] = ()
    json: bool = False
    quiet: bool = False
    timeout: float | None = None
    log_level: str | None = None
    log_format: Literal["text", "json"] = "text"
    environment: tuple[str, ...] = ()
    lenient: bool = False
    snapshot: bool = False
    watch: bool = False
    full: bool = False
    kind: Literal["tool", "method"] | None = None
    follow: bool = False
    browser: bool = True
    shell: str = ""
    topic: str | None = None
    output: str | None = None
    force: bool = False
    check: bool = False
    sources: tuple[str, ...] = ()
    project: str | None = None
    port: int = 0
    era: Literal["handshake", "stateless"] = "handshake"
    sse: bool = False
    stdio: bool = False
    tools: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    listen: str | None = None
    workers: int | None = None
    demo: bool = False
    action: Literal["", "new", "list", "revoke"] = ""
    name: str | None = None
    file: str = "keys.jsonl"
    scopes: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    expires: str | None = None
