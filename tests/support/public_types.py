"""The types of all public names, checked with ``pyright --verifytypes``: ``python -m support.public_types PYRIGHT``.

An adapter for a framework that is not installed is left out, since its base classes are unknown then.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Final

__all__ = ["incomplete"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_FRAMEWORKS: Final = {
    "mcp_manager.adapters.langchain.": "langchain_core",
    "mcp_manager.adapters.llama_index.": "llama_index",
    "mcp_manager.adapters.openai_agents.": "agents",
    "mcp_manager.adapters.pydantic_ai.": "pydantic_ai",
}


def incomplete(report: dict[str, Any], missing: tuple[str, ...]) -> list[str]:
    """Return what pyright says of public names whose type it does not know.

    Parameters
    ----------
    report
        What ``pyright --verifytypes --outputjson`` wrote.
    missing
        Beginnings of names to leave out.
    """
    symbols = report["typeCompleteness"]["symbols"]
    return [
        f"{symbol['name']}: {diagnostic['message']}"
        for symbol in symbols
        if not symbol["name"].startswith(missing)
        for diagnostic in symbol["diagnostics"]
        if diagnostic["severity"] == "error"
    ]


def main(pyright: str) -> int:
    """Print what is incomplete; return 1 if something is."""
    command = [pyright, "--pythonpath", sys.executable, "--verifytypes", "mcp_manager", "--ignoreexternal"]
    # pyright finds the packages that one of this path imports only if they are in it, too.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(_ROOT), sysconfig.get_path("purelib")))}
    with tempfile.TemporaryDirectory() as elsewhere:
        ran = subprocess.run(
            [*command, "--outputjson"], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
    report = json.loads(ran.stdout)
    assert report["typeCompleteness"]["symbols"], "pyright did not find the package"
    missing = tuple(name for name, package in _FRAMEWORKS.items() if importlib.util.find_spec(package) is None)
    found = incomplete(report, missing)
    print(*found, f"{len(report['typeCompleteness']['symbols'])} public types, {len(found)} incomplete", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).absolute())))
