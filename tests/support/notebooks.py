"""Notebooks of the examples: their code for a type checker, and their outputs, committed or new.

``python -m support.notebooks DIRECTORY`` (with ``tests`` in the path) writes the code to files for a type checker;
``python -m support.notebooks --run`` runs each notebook and writes its outputs into it.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

__all__ = ["NOTEBOOKS", "cells_of", "outputs_of", "program_of"]

NOTEBOOKS: Final = tuple(sorted((Path(__file__).resolve().parents[2] / "examples").rglob("*.ipynb")))


def cells_of(path: Path) -> dict[str, str]:
    """Return the code of each cell by the cell's id."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {each["id"]: "".join(each["source"]) for each in cells if each["cell_type"] == "code"}


def outputs_of(notebook: Any) -> dict[str, list[dict[str, Any]]]:
    """Return what each cell of a notebook shows, as plain data: texts in one piece, however often it was flushed."""
    return {
        cell["id"]: _plain(_coalesced(cell["outputs"])) for cell in notebook["cells"] if cell["cell_type"] == "code"
    }


def _coalesced(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for output in outputs:
        before = joined[-1] if joined else {}
        if output["output_type"] == "stream" and before.get("name") == output["name"]:
            text = "".join([*before["text"], *output["text"]])
            joined[-1] = {**output, "text": text.splitlines(keepends=True)}
        else:
            joined.append(output)
    return joined


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return "".join(value) if value and isinstance(value[0], str) else [_plain(each) for each in value]
    return value


def program_of(path: Path) -> str:
    """Return the cells as one program, in which they may await.

    A value that a cell shows, because it stands last, is passed to ``print``: elsewhere, it would be without effect.
    """
    body = "\n\n".join(_shown(code) for code in cells_of(path).values())
    main = f"async def main() -> None:\n{textwrap.indent(body, '    ')}"
    return f"import asyncio as _asyncio\n\n\n{main}\n\n\n_asyncio.run(main())\n"


def _shown(code: str) -> str:
    module = compile(code, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(module, ast.Module)
    last = module.body[-1]
    if not isinstance(last, ast.Expr) or isinstance(last.value, ast.Call | ast.Await):
        return code
    lines = code.splitlines()
    return "\n".join([*lines[: last.lineno - 1], "print(", *lines[last.lineno - 1 :], ")"])


def _run(path: Path) -> None:
    subprocess.run(["jupyter-execute", "--inplace", str(path)], check=True)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    # What another run, or another Python, would change.
    notebook["metadata"]["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] == "code":
            cell["outputs"] = _coalesced(cell["outputs"])
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _main(argument: str) -> None:
    if argument == "--run":
        for path in NOTEBOOKS:
            _run(path)
        return
    directory = Path(argument)
    directory.mkdir(parents=True, exist_ok=True)
    for path in NOTEBOOKS:
        (directory / f"notebook_{path.stem}.py").write_text(program_of(path), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1])
