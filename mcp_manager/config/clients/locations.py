"""Where the clients keep their files, as data, and which of them are there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

__all__ = ["ClientFile", "find_client_files"]

Scope = Literal["user", "project"]


class ClientFile(NamedTuple):
    """A configuration file of an installed client.

    Parameters
    ----------
    client
        Its name.
    path
        The file.
    scope
        Whether it is for all projects of the user, or for one project.
    """

    client: str
    path: Path
    scope: Scope


_LINUX, _MAC, _WINDOWS = "linux", "darwin", "win32"
_SETTINGS: Final[Mapping[str, str]] = {
    _LINUX: "{config}",
    _MAC: "{home}/Library/Application Support",
    _WINDOWS: "{appdata}",
}
"""Where applications keep their settings, by system."""
_EDITORS: Final = {"VS Code": "Code", "VS Code Insiders": "Code - Insiders", "VSCodium": "VSCodium"}
_IN_HOME: Final = (
    ("Claude Code", ".claude.json"),
    ("Cursor", ".cursor/mcp.json"),
    ("Windsurf", ".codeium/windsurf/mcp_config.json"),
    ("Gemini CLI", ".gemini/settings.json"),
    ("Antigravity", ".gemini/antigravity/mcp_config.json"),
    ("Qwen Code", ".qwen/settings.json"),
    ("Kiro", ".kiro/settings/mcp.json"),
    ("Amazon Q", ".aws/amazonq/mcp.json"),
    ("Copilot CLI", ".copilot/mcp-config.json"),
    ("Codex", ".codex/config.toml"),
    ("Continue", ".continue/config.yaml"),
    ("Continue", ".continue/config.json"),
    ("LM Studio", ".lmstudio/mcp.json"),
)
"""Files that are in the same place on every system."""
_IN_CONFIG: Final = (
    ("Zed", "zed/settings.json", "{appdata}/Zed/settings.json"),
    ("opencode", "opencode/opencode.json", None),
    ("opencode", "opencode/opencode.jsonc", None),
    ("Crush", "crush/crush.json", "{localappdata}/crush/crush.json"),
    ("Goose", "goose/config.yaml", "{appdata}/Block/goose/config/config.yaml"),
    ("Amp", "amp/settings.json", None),
)
"""Files in ``~/.config``, on macOS too, and where they are on Windows if not there."""
_IN_SETTINGS: Final = (
    ("Claude Desktop", "Claude/claude_desktop_config.json"),
    *(
        (client, f"{folder}/User/{name}")
        for client, folder in _EDITORS.items()
        for name in ("mcp.json", "settings.json")
    ),
    *(
        (client, f"{folder}/User/globalStorage/{name}")
        for folder in _EDITORS.values()
        for client, name in (
            ("Cline", "saoudrizwan.claude-dev/settings/cline_mcp_settings.json"),
            ("Roo Code", "rooveterinaryinc.roo-cline/settings/mcp_settings.json"),
            ("Kilo Code", "kilocode.kilo-code/settings/mcp_settings.json"),
        )
    ),
)
_IN_PROJECT: Final = (
    ("Claude Code", ".mcp.json"),
    ("VS Code", ".vscode/mcp.json"),
    ("VS Code", ".vscode/settings.json"),
    ("devcontainer", ".devcontainer/devcontainer.json"),
    ("devcontainer", ".devcontainer.json"),
    ("Cursor", ".cursor/mcp.json"),
    ("Roo Code", ".roo/mcp.json"),
    ("Kilo Code", ".kilocode/mcp.json"),
    ("Gemini CLI", ".gemini/settings.json"),
    ("Kiro", ".kiro/settings/mcp.json"),
    ("Amazon Q", ".amazonq/mcp.json"),
    ("Copilot CLI", ".github/mcp.json"),
    ("Codex", ".codex/config.toml"),
    ("Zed", ".zed/settings.json"),
    ("opencode", "opencode.json"),
    ("opencode", "opencode.jsonc"),
    ("Crush", "crush.json"),
    ("Crush", ".crush.json"),
    ("Continue", ".continue/config.yaml"),
    ("LibreChat", "librechat.yaml"),
)


def find_client_files(
    home: str | os.PathLike[str] | None = None,
    project: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    system: str = sys.platform,
) -> list[ClientFile]:
    """Find the configuration files of installed clients. Nothing is read.

    Parameters
    ----------
    home
        The home of the user. Default: that of this process.
    project
        A folder to look in for the files of a project. Default: none.
    environment
        The variables that name folders: ``XDG_CONFIG_HOME``, ``APPDATA``, ``LOCALAPPDATA``. Default: ``os.environ``
        for this process's own home, else none.
    system
        The system whose places to look in, as ``sys.platform`` names it.

    Returns
    -------
    The files that exist, those of the project first.
    """
    if environment is None:
        environment = os.environ if home is None else {}
    user = Path.home() if home is None else Path(home)
    folders = {
        "home": str(user),
        "config": environment.get("XDG_CONFIG_HOME") or str(user / ".config"),
        "appdata": environment.get("APPDATA") or str(user / "AppData" / "Roaming"),
        "localappdata": environment.get("LOCALAPPDATA") or str(user / "AppData" / "Local"),
    }
    found: list[ClientFile] = []
    if project is not None:
        found += [ClientFile(client, Path(project) / name, "project") for client, name in _IN_PROJECT]
    found += [ClientFile(client, Path(name.format_map(folders)), "user") for client, name in _of_user(system)]
    # A project in the home of its user has some files twice.
    existing = {each.path: each for each in reversed(found) if _is_file(each.path)}
    return list(reversed(existing.values()))


def _of_user(system: str) -> Iterator[tuple[str, str]]:
    for client, name in _IN_HOME:
        yield client, f"{{home}}/{name}"
    for client, name, on_windows in _IN_CONFIG:
        yield client, on_windows if system == _WINDOWS and on_windows else f"{{config}}/{name}"
    for client, name in _IN_SETTINGS:
        yield client, f"{_SETTINGS.get(system, _SETTINGS[_LINUX])}/{name}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
