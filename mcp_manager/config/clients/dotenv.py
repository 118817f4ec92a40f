"""The variables in a file that a server names as its ``envFile``; needs the extra ``clients``."""

from __future__ import annotations

import io
from typing import Final

from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.clients.placeholders import Surroundings
from mcp_manager.config.reading import read_text

__all__ = ["read_variables"]

_LARGEST: Final = 2**20


def read_variables(around: Surroundings, name: str, where: str) -> dict[str, str]:
    """Return the variables of a file; one that is not absolute is in the project's folder.

    Raises
    ------
    FieldProblem
        The file cannot be read, or the extra ``clients`` is not installed.
    """
    try:
        from dotenv import dotenv_values  # noqa: PLC0415 - an extra
    except ImportError:
        text = "needs python-dotenv, which is not installed"
        raise FieldProblem(where, text, "pip install 'pymcp-manager[clients]'") from None
    if name == "~" or name.startswith("~/"):
        name = f"{around.home}{name[1:]}"
    try:
        text = read_text(around.workspace / name, _LARGEST)
    except FieldProblem as unreadable:
        problem = f"the file that it names {unreadable.text}"
    else:
        # Without interpolation: the clients take the values as they are.
        found = dotenv_values(stream=io.StringIO(text), interpolate=False)
        variables = {variable: value for variable, value in found.items() if value is not None}
        around.secrets.extend(variables.values())
        return variables
    raise FieldProblem(where, problem)
