"""Install servers of ``published_servers.toml``.

``python tests/support/published_install.py DIRECTORY [NAME ... | all]`` installs the named servers, all of them, or
without names the core, which every test run uses. Installed servers are kept. Each Python server gets its own
environment; npm packages share a folder, and their install scripts do not run.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.published_servers import NODE_PIN, SDK_PIN, Published, published_servers

__all__ = ["install"]

_UV: Final = "uv==0.13.9"
_NPM: Final = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error")


def install(directory: Path, names: Collection[str] = ()) -> Mapping[str, str]:
    """Install servers in addition to those already installed, and list all of them in ``installed.json``.

    Parameters
    ----------
    directory
        The directory to install into; it is created if it does not exist.
    names
        The names of servers in the table; empty for the core.

    Returns
    -------
    Mapping
        Why a server could not be installed ("" if it was), by the name of each requested server.
    """
    table = published_servers()
    chosen = {name for name in names or table if names or table[name].core}
    wanted = [table[name] for name in chosen | {table[name].bridges for name in chosen} - {""}]
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    problems = _install_npm(directory, [each for each in wanted if each.registry == "npm"])
    problems |= _install_pypi(directory, [each for each in wanted if each.registry == "pypi"])
    found = {
        name: problems.get(table[name].folder) or problems.get(_bridged_folder(table[name])) or ""
        for name in sorted(chosen)
    }
    noted = directory / "installed.json"
    before = _read(noted)
    kept = {name: before[name] for name in before if name in table}
    noted.write_text(json.dumps(kept | found, indent=1), encoding="utf-8")
    return found


def _read(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_bytes()) if path.is_file() else {}
    return found


def _bridged_folder(server: Published) -> str:
    return published_servers()[server.bridges].folder if server.bridges else ""


def _install_npm(directory: Path, servers: Collection[Published]) -> dict[str, str]:
    """Install npm packages all at once, or one by one if that fails; return the failures by folder."""
    root = directory / "node"
    marker = root / "installed.json"
    there = _read(marker)
    # npm removes packages that are not named.
    dependencies = there | dict([SDK_PIN])
    for server in servers:
        name, version = server.pin
        dependencies[server.alias or name] = f"npm:{name}@{version}" if server.alias else version
    if "MCP_MANAGER_NODE_PACKAGES" not in os.environ:
        dependencies |= dict([NODE_PIN])
    if not servers or dependencies == there:
        return {}
    root.mkdir(exist_ok=True)
    description = json.dumps({"private": True, "dependencies": dependencies}, indent=1)
    (root / "package.json").write_text(description, encoding="utf-8")
    problems: dict[str, str] = {}
    npm = [*_NPM, "--prefix", str(root)]
    if _run(npm):
        (root / "package.json").write_text('{"private": true}', encoding="utf-8")
        for name, version in dependencies.items():
            if problem := _run([*npm, "--save-exact", f"{name}@{version}"]):
                problems[f"node/node_modules/{name}"] = problem
    for server in servers:
        if server.program and server.folder not in problems:
            # An install script of the package would do this.
            program = directory / server.folder / server.program
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
    if not problems:
        marker.write_text(json.dumps(dependencies, indent=1), encoding="utf-8")
    return problems


def _install_pypi(directory: Path, servers: Iterable[Published]) -> dict[str, str]:
    """Install each PyPI package into its own environment; return the failures by folder."""
    by_folder = {server.folder: server for server in servers}
    missing = [each for each in by_folder if not (directory / each / "installed").is_file()]
    if not missing:
        return {}
    uv = directory / "uv" / "bin" / "uv"
    if not uv.is_file():
        problem = _run([sys.executable, "-m", "venv", str(directory / "uv")])
        problem = problem or _run([str(directory / "uv" / "bin" / "pip"), "install", "--quiet", _UV])
        if problem:
            return dict.fromkeys(missing, problem)
    problems = {}
    for folder in missing:
        server, root = by_folder[folder], directory / folder
        python = str(root / "bin" / "python")
        problem = _run([str(uv), "venv", "--quiet", "--no-project", "--clear", "--python", sys.executable, str(root)])
        pins = ["==".join(server.pin), *server.pins]
        problem = problem or _run(
            [str(uv), "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *pins]
        )
        if problem:
            problems[folder] = problem
        else:
            (root / "installed").touch()
    return problems


def _run(command: list[str]) -> str:
    """Run a command; return the end of its output if it failed, "" otherwise."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr + done.stdout).strip()[-1000:] or f"{command[0]} failed"


def main(arguments: list[str]) -> int:
    """Install the requested servers; return 1 if any of them could not be installed."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    table = published_servers()
    names = list(table) if arguments[1:] == ["all"] else arguments[1:]
    if unknown := set(names) - set(table):
        print(f"not in the table: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    found = install(Path(arguments[0]), names)
    for name, problem in found.items():
        if problem:
            print(f"{name}: {problem}", file=sys.stderr)
    print(f"{sum(not problem for problem in found.values())} of {len(found)} servers are installed in {arguments[0]}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
