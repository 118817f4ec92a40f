"""Files of editors: VS Code, its settings, devcontainers, Zed; comments and encodings."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.client_files import SECRET, ClientFile, check, ids

from mcp_manager.config import load_manager_config

URL = "https://example.com/mcp"
ONE = '{"servers": {"a": {"command": "run"}}}'
A = {"a": {"command": "run"}}

FILES = [
    ClientFile(
        "VS Code: inputs with a default, envFile, variables, fields without a meaning",
        ".vscode/mcp.json",
        """{
  // the servers of the team
  "inputs": [
    {"id": "model", "type": "pickString", "default": "small", "options": ["small"]},
    {"id": "key", "type": "promptString", "password": true}
  ],
  "servers": {
    "a": {
      "type": "stdio", "command": "run", "args": ["--model", "${input:model}", "${workspaceFolder}${/}x",],
      "envFile": "${workspaceFolder}/.env", "env": {"K": "${env:TOKEN}"}, "dev": {"watch": "x"}, "gallery": true
    },
    "b": {"type": "http", "url": "https://example.com/mcp", "headers": {"X-K": "${input:key}"}}, /* off? */
  },
}
""",
        problems=[
            "12:73: servers.b.headers.X-K: needs the input 'key', which the client asks its user for (set the environment "
            "variable INPUT_KEY)"
        ],
        beside={".env": "A=b\n"},
    ),
    ClientFile(
        "VS Code: the same without the input that is missing",
        ".vscode/mcp.json",
        """{
  "inputs": [{"id": "model", "type": "pickString", "default": "small"}],
  "servers": {
    "a": {
      "type": "stdio", "command": "run", "args": ["--model", "${input:model}", "${workspaceFolder}${/}x",],
      "envFile": "${workspaceFolder}/.env", "env": {"K": "${env:TOKEN}"}, "dev": {"watch": "x"}, "gallery": true
    }
  }
}
""",
        {
            "a": {
                "command": "run",
                "args": ["--model", "small", "{project}/x"],
                "env": {"K": SECRET, "A": "b"},
            }
        },
        beside={".env": "A=b\n"},
    ),
    ClientFile(
        "VS Code: a sandbox is not there, and that is told",
        ".vscode/mcp.json",
        {"servers": {"a": {"command": "run", "sandboxEnabled": True, "sandbox": {"network": {}}}}},
        A,
        ["servers.a: the sandbox is ignored: the program runs without one"],
    ),
    ClientFile(
        "VS Code: a command that only the editor can run",
        ".vscode/mcp.json",
        {"servers": {"a": {"command": "run", "args": ["${command:pick}", "${config:python.path}"]}}},
        problems=[
            "6:5: servers.a.args[0]: needs 'command:pick', which only the client can fill in (write ${VAR} instead)",
            "7:5: servers.a.args[1]: needs 'config:python.path', which only the client can fill in (write ${VAR} instead)",
        ],
    ),
    ClientFile("VS Code: a line comment", "mcp.json", '{\n // the "team\'s" servers\n' + ONE[1:], A),
    ClientFile("VS Code: a block comment with a quote", "mcp.json", '{/* "off */' + ONE[1:], A),
    ClientFile(
        "VS Code: trailing commas, and a comma in a text",
        "mcp.json",
        '{"servers": {"a": {"command": "run", "args": [",]", "// no",], /* x */ }, }, }',
        {"a": {"command": "run", "args": [",]", "// no"]}},
    ),
    ClientFile(
        "VS Code: slashes in a URL are no comment",
        "mcp.json",
        '{"servers": {"a": {"url": "https://example.com//mcp"}}}',
        {"a": {"url": "https://example.com//mcp"}},
    ),
    ClientFile(
        "VS Code: a comma without a value stays a mistake",
        "mcp.json",
        '{"servers": {,}}',
        problems=["1:14: malformed JSON: Expecting property name enclosed in double quotes"],
    ),
    ClientFile(
        "VS Code: a comment that does not end",
        "mcp.json",
        '{"servers": {}} /* x',
        problems=["1:17: malformed JSON: Extra data"],
    ),
    ClientFile("VS Code: JSONC by its name", "servers.jsonc", "// x\n" + ONE, A),
    ClientFile("a byte order mark", "mcp.json", b"\xef\xbb\xbf" + ONE.encode(), A),
    ClientFile("UTF-16, as PowerShell writes it", "mcp.json", ONE.encode("utf-16"), A),
    ClientFile("UTF-16, big end first", "mcp.json", b"\xfe\xff" + ONE.encode("utf-16-be"), A),
    ClientFile(
        "UTF-16 without a mark",
        "mcp.json",
        ONE.encode("utf-16-le"),
        problems=["None:None: contains NUL characters: it is a binary file, or UTF-16 without a byte order mark"],
    ),
    ClientFile(
        "UTF-32",
        "mcp.json",
        ONE.encode("utf-32"),
        problems=["None:None: is encoded in UTF-32 (save it as UTF-8)"],
    ),
    ClientFile(
        "UTF-16 that breaks off",
        "mcp.json",
        ONE.encode("utf-16")[:-1],
        problems=["None:None: byte 76 is not UTF-16 (save it as UTF-8)"],
    ),
    ClientFile(
        "Latin-1",
        "mcp.json",
        b'{"servers": {"a": {"command": "caf\xe9"}}}',
        problems=["None:None: byte 34 is not UTF-8"],
    ),
    ClientFile("CRLF", "mcp.json", ONE.replace(" ", "\r\n").encode(), A),
    ClientFile(
        "a key that is given twice, at its place",
        "mcp.json",
        '{"servers": {\n  "a": {"command": "x"},\n  "a": {"command": "y"}}}',
        problems=["3:3: a: malformed JSON: the key is given twice in one object"],
    ),
    ClientFile(
        "VS Code: settings with a table in a table",
        ".vscode/settings.json",
        '{"editor.fontSize": 12, "mcp": {"servers": {"a": {"command": "run"}}, "inputs": []}, // x\n}',
        A,
    ),
    ClientFile(
        "VS Code: settings with a dot in the name",
        ".vscode/settings.json",
        {"mcp.servers": {"a": {"command": "run", "cwd": "tools"}}, "chat.mcp.enabled": True},
        {"a": {"command": "run", "cwd": "{project}/tools"}},
    ),
    ClientFile(
        "VS Code: settings with inputs beside the servers",
        ".vscode/settings.json",
        {
            "mcp": {
                "inputs": [{"id": "x", "type": "pickString", "default": "d"}],
                "servers": {"a": {"command": "run", "args": ["${input:x}"]}},
            }
        },
        {"a": {"command": "run", "args": ["d"]}},
    ),
    ClientFile(
        "Zed: an older extension without a source, and null as its command",
        ".config/zed/settings.json",
        {"context_servers": {"a": {"command": None, "settings": {"k": 1}}, "b": {"settings": {}, "command": "run"}}},
        {"b": {"command": "run"}},
        ["context_servers.a: is an extension of Zed, and no server of its own; it is left out"],
    ),
    ClientFile(
        "VS Code: settings inside settings",
        "workspace.json",
        {"folders": [], "settings": {"mcp": {"servers": {"a": {"command": "run"}}}}},
        A,
    ),
    ClientFile(
        "devcontainer: servers below customizations, comments",
        ".devcontainer/devcontainer.json",
        '{"image": "x", // y\n "customizations": {"vscode": {"mcp": {"servers": {"a": {"command": "run", '
        '"args": ["${workspaceFolder}"]}}}}}}',
        {"a": {"command": "run", "args": ["{project}"]}},
    ),
    ClientFile(
        "Zed: custom, off, an extension, a nested command, seconds",
        ".zed/settings.json",
        """{
  "theme": "One Dark",
  "context_servers": {
    "a": {"source": "custom", "command": "run", "args": ["x"], "env": {"A": "b"}, "enabled": true, "timeout": 90},
    "b": {"source": "custom", "command": {"path": "run", "args": ["y"], "env": {"C": "d"}}, "settings": {}},
    "c": {"source": "extension", "settings": {"k": "v"}},
    "d": {"command": "run", "enabled": false},
    "e": {"url": "https://example.com/mcp", "headers": {"X-A": "b"}, "remote": true},
  },
}
""",
        {
            "a": {"command": "run", "args": ["x"], "env": {"A": "b"}, "request_timeout_s": 90.0},
            "b": {"command": "run", "args": ["y"], "env": {"C": "d"}},
            "e": {"url": URL, "headers": {"X-A": "b"}},
        },
        ["context_servers.c: is an extension of Zed, and no server of its own; it is left out"],
        off=["d"],
    ),
]


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_a_file_means_what_its_client_means(file: ClientFile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(file, tmp_path, caplog)


def test_placeholders_are_whole_paths_even_if_the_file_was_named_by_a_relative_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".vscode"
    folder.mkdir()
    (folder / "mcp.json").write_text(
        '{"servers": {"a": {"command": "run", "args": ["${workspaceFolder}/x"], "cwd": "${workspaceFolder}"}}}',
        encoding="utf-8",
    )
    for current, named in ((tmp_path, ".vscode/mcp.json"), (folder, "mcp.json")):
        monkeypatch.chdir(current)
        server = load_manager_config(named, environment={}).servers["a"]
        assert server.args == (f"{tmp_path}/x",)
        assert server.cwd == str(tmp_path)
