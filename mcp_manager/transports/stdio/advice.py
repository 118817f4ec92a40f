"""What to do about a program that does not start, ends, or does not answer."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from mcp_manager.config import ServerConfig
from mcp_manager.errors import ConnectError
from mcp_manager.transports.containment import is_resource_exhaustion
from mcp_manager.transports.stdio.child import child_environment

__all__ = ["advice_on", "start_failure"]

_START_HINTS: Final = {
    errno.ENOENT: "check the path in command; a script also needs the program of its #! line",
    errno.EACCES: "make the file executable, or give the program that runs it as command",
    errno.ENOEXEC: "a script needs a #! line; a program must be built for this machine",
    errno.E2BIG: "args and env are too long together",
    errno.EMFILE: "this process has too many files open: raise its limit (ulimit -n)",
    errno.ENFILE: "the machine has too many files open",
    errno.EAGAIN: "no more processes are allowed: raise the limit (ulimit -u)",
    errno.ENOMEM: "the machine is out of memory",
}
_NOT_ON_PATH: Final = "it is not on PATH: install it, or give its full path in command"
_ASKS: Final = re.compile(r"\bOk to proceed\?")
_SERVES: Final = re.compile(
    r"\b(?:listening|running|serving|started|available)\b.{0,80}(?:\bport\b|https?://|:\d{2,5}\b)", re.I
)
_VARIABLE: Final = re.compile(r"(?<![\w-])[A-Z][A-Z0-9]{0,60}(?:_[A-Z0-9]{1,60}){1,10}(?![\w-])")
# Words around the name of a variable that a program misses.
_MISSES: Final = re.compile(
    r"\b(?:not (?:set|found|defined|provided|configured|specified|given)|missing|required?|requires|must|needs?"
    r"|please|provide|undefined|empty|environment|env|KeyError)\b",
    re.I,
)
# Error codes look like variables.
_CODE: Final = re.compile(r"ERR_|.*_NOT_FOUND$|.*_ERROR$")


def start_failure(config: ServerConfig, server_id: str, error: OSError | ValueError) -> ConnectError:
    """Make the error for a program that the system did not start."""
    command = config.command or ""
    program, blank, _ = command.partition(" ")
    # What follows may be arguments, which may be secret.
    shown = f"'{program} …'" if blank and "/" not in program else repr(command)
    if not isinstance(error, OSError):
        # The exception's text may quote an environment variable.
        reason, hint = "a NUL or a lone surrogate cannot be passed on", "check command, args, cwd and env"
    else:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        hint = _START_HINTS.get(error.errno or 0, "check command, args and cwd")
        if config.cwd is not None and error.filename == config.cwd != command:
            reason += f": its working directory {config.cwd!r}"
            hint = "create the directory, or correct cwd"
        elif error.errno == errno.ENOENT and blank:
            hint = f"command is the program alone, such as {program!r}: put what follows into args, as a list"
        elif error.errno == errno.ENOENT and "/" not in command:
            hint = _NOT_ON_PATH
    failure = ConnectError(f"cannot start {shown}: {reason}", server_id=server_id, hint=hint)
    if is_resource_exhaustion(error) or (isinstance(error, OSError) and error.errno == errno.EAGAIN):
        failure.is_local = True
        failure.hint = "this process is at a limit: of open files (ulimit -n), processes (ulimit -u) or memory"
    return failure


def advice_on(config: ServerConfig, said: str) -> str:
    """Return what to do about what a program wrote before it failed; "" if that is not known."""
    if _ASKS.search(said):
        return 'npx asks before it installs: begin args with "-y"'
    if _SERVES.search(said):
        return "if it serves HTTP, deploy its url in place of command"
    if _MISSES.search(said):
        given = child_environment(config.env, config.inherit_env)
        for found in _VARIABLE.finditer(said):
            name = found[0]
            if name in given or _CODE.match(name):
                continue
            if name in os.environ:
                return f"{name} is set here, but not for the program: name it in inherit_env"
            return f"if {name} is a variable, set it in env"
    return ""
