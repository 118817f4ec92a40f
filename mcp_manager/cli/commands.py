"""The verbs of the command line, with their arguments and options."""

from __future__ import annotations

from typing import Any, Final

import click

from mcp_manager._version import __version__
from mcp_manager.cli.options import Options
from mcp_manager.cli.parsing import Source, Verb, Verbs, Words
from mcp_manager.cli.program import Work, verb_at

__all__ = ["program"]

_EPILOG: Final = """\
CONFIG is a configuration file of this program or of an MCP client, or the URL of a server. Words after -- are the
command line of a server, in place of CONFIG.

\b
  mcp-manager tools fleet.toml
  mcp-manager tools https://example.com/mcp
  mcp-manager tools -- uvx mcp-server-time

Begin with: mcp-manager demo. The manual: mcp-manager help. Exit status: 0 success, 1 failure, 2 usage error (arguments,
configuration, unknown server), 130 interrupted."""
_LEVELS: Final = ("debug", "info", "warning", "error")

_Parameters = list[click.Parameter]


def _flag(*names: str, about: str, **more: Any) -> click.Option:
    return click.Option(names, is_flag=True, help=about, **more)


_COMMON: Final = (
    _flag("--json", about="Print JSON, also for a failure."),
    _flag("-q", "--quiet", about="Print nothing but results and errors."),
)
_FLEET: Final = (
    *_COMMON,
    click.Option(
        ["-e", "--env", "environment"],
        multiple=True,
        metavar="NAME[=VALUE]",
        help="With a command line after --: pass on a variable, or set it.",
    ),
    _flag("--lenient", about="Leave out the servers that have mistakes, instead of refusing the file."),
    click.Option(
        ["--log-level"],
        type=click.Choice(_LEVELS, case_sensitive=False),
        metavar="LEVEL",
        help="Show the manager's log on standard error, from this level on: debug, info, warning or error.",
    ),
    click.Option(
        ["--log-format"],
        type=click.Choice(["text", "json"]),
        default="text",
        metavar="FORMAT",
        help="How to write the log: text (the default) or json.",
    ),
)


def _output(about: str) -> click.Option:
    return click.Option(["-o", "--output"], type=click.Path(dir_okay=False), metavar="FILE", help=about)


_TIMEOUT: Final = click.Option(
    ["--timeout"],
    type=float,
    metavar="SECONDS",
    help="Default: the server's request_timeout_s; for a program start_timeout_s, if that is longer.",
)


def _verb(name: str, place: str, about: str, example: str = "", parameters: _Parameters | None = None) -> None:
    """Add a verb to the program: ``place`` is its function, and the first line of ``about`` its summary."""

    def run(**given: Any) -> Work:
        return verb_at(place, Options(verb=name, **given))

    lines = "\n".join(f"  {line}" for line in example.splitlines())
    program.add_command(
        Verb(
            name,
            callback=run,
            params=parameters or list(_COMMON),
            help=about,
            short_help=about.partition("\n")[0].rstrip("."),
            epilog=f"\b\nExample:\n{lines}" if example else None,
        )
    )


def _fleet(words: str, *more: click.Parameter) -> _Parameters:
    """Return the parameters of a verb that acts on a fleet; ``words`` is what may follow CONFIG, "" for nothing."""
    arguments: _Parameters = [click.Argument(["config"], type=Source(), metavar="CONFIG")]
    if words:
        arguments.append(click.Argument(["words"], nargs=-1, type=Words(), metavar=words))
    return [*arguments, *more, *_FLEET]


@click.group(
    cls=Verbs,
    epilog=_EPILOG,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="mcp-manager", message="%(prog)s %(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Manage a fleet of MCP servers."""
    if ctx.invoked_subcommand is None:
        raise click.UsageError("nothing to do: try mcp-manager demo, which needs no configuration", ctx)


_verb(
    "demo",
    "demo:run",
    "Watch a small fleet lose servers and recover.\n\nIt takes about ten seconds and needs no configuration.",
    "mcp-manager demo",
)
_verb(
    "check",
    "fleet:check_servers",
    "Connect to every server once and report which ones answer.\n\n"
    "It waits for programs that are still starting, because they may be downloaded first.",
    "mcp-manager check fleet.toml",
    _fleet(""),
)
_verb(
    "serve",
    "serve:run",
    "Serve the whole fleet at one address, to any MCP client.\n\n"
    "Clients find all servers at /mcp, each view at /mcp/NAME and each server at /servers/ID/mcp. With --stdio, a client starts this program itself. "
    "SIGTERM stops the gateway after the running calls, and SIGHUP makes it read CONFIG again. All settings: mcp-manager help gateway.",
    "mcp-manager serve --demo\nmcp-manager serve fleet.toml --listen 127.0.0.1:9000\nmcp-manager serve fleet.toml --stdio",
    [
        click.Argument(["config"], type=Source(), metavar="[CONFIG]", required=False),
        click.Option(
            ["--listen"],
            metavar="ADDRESS",
            help="The address to listen on: HOST:PORT, unix:PATH or systemd. Default: serve.listen, else 127.0.0.1:8080.",
        ),
        _flag("--stdio", about="Serve one client on standard input and output instead."),
        click.Option(
            ["--workers"],
            type=click.IntRange(1, 256),
            metavar="N",
            help="The number of processes. Default: serve.workers, else 1.",
        ),
        _flag("-w", "--watch", about="Apply CONFIG whenever it changes."),
        _flag("--demo", about="Serve two demo servers; needs no CONFIG."),
        *_FLEET,
    ],
)
_verb(
    "key",
    "keys:run",
    "Make, list or revoke API keys for clients of the gateway.\n\n"
    "The file contains only the hashes of the keys; name it in serve.auth.keys_file. key new prints the key once. "
    "key revoke takes a name, or the id of one key. A running gateway applies a change within a second.",
    "mcp-manager key new ci --scope tools --expires 90d\nmcp-manager key list\nmcp-manager key revoke ci",
    [
        click.Argument(["action"], type=click.Choice(["new", "list", "revoke"]), metavar="new|list|revoke"),
        click.Argument(["name"], required=False, metavar="[NAME]"),
        click.Option(
            ["--file"],
            type=click.Path(dir_okay=False),
            default="keys.jsonl",
            metavar="FILE",
            help="The file of the keys. Default: keys.jsonl.",
        ),
        click.Option(
            ["--scope", "scopes"], multiple=True, metavar="SCOPE", help="A scope of a new key; may be repeated."
        ),
        click.Option(
            ["--claim", "claims"],
            multiple=True,
            metavar="NAME=VALUE",
            help="A claim of a new key, for serve.allow; may be repeated.",
        ),
        click.Option(
            ["--expires"], metavar="WHEN", help="When a new key expires: 90d, 12h, or a date such as 2027-01-31."
        ),
        *_COMMON,
    ],
)
_verb(
    "doctor",
    "doctor.verb:run",
    "Say what is wrong with a fleet, and what to do about it.\n\n"
    "It looks at the configuration, the programs, the connections, the tools and the clocks. The exit status is 1 if it finds an error.",
    "mcp-manager doctor fleet.toml",
    _fleet(""),
)
_verb(
    "list",
    "fleet:list_servers",
    "List the configured servers without connecting.",
    "mcp-manager list fleet.toml",
    _fleet(""),
)
_verb(
    "status",
    "fleet:status",
    "Connect to every server and show its state.\n\n"
    "With --watch the table follows the states until you press q or Ctrl-C; in a pipe, every change is a line. It follows CONFIG as well: a file that changes is applied, and SIGHUP reads it at once.",
    "mcp-manager status fleet.toml --watch",
    _fleet(
        "",
        _flag("-w", "--watch", about="Go on showing the states, and apply CONFIG whenever it changes."),
        _flag("--snapshot", about="Print the whole snapshot, down to instances, as JSON."),
    ),
)
_FULL: Final = _flag("--full", about="Show descriptions in full.")
_verb(
    "tools",
    "lists:tools",
    "List the tools of all servers or of one.",
    "mcp-manager tools fleet.toml files",
    _fleet("[SERVER]", _FULL),
)
_verb(
    "resources",
    "lists:resources",
    "List the resources of all servers or of one.\n\nTemplates of resources are among them.",
    "mcp-manager resources fleet.toml files",
    _fleet("[SERVER]", _FULL),
)
_verb(
    "prompts",
    "lists:prompts",
    "List the prompts of all servers or of one.",
    "mcp-manager prompts fleet.toml files",
    _fleet("[SERVER]", _FULL),
)
_verb(
    "pin",
    "pin:run",
    "Pin the definitions of tools and prompts, and show what differs.\n\n"
    "It compares what the servers list with the file that serve.pins.path names, shows what was added, removed or changed, and writes the file. "
    "With serve.pins.mode, the gateway warns of what differs, or hides it. With --check nothing is written, and the exit status is 1 if anything differs.",
    "mcp-manager pin fleet.toml\nmcp-manager pin fleet.toml --check",
    _fleet(
        "[SERVER]",
        _output("The file of pins. Default: serve.pins.path of CONFIG."),
        _flag("--check", about="Only show what differs; the exit status is 1 if anything does."),
        _flag("--full", about="Show definitions in full."),
    ),
)
_verb(
    "call",
    "call:run",
    "Call a tool, or send any request.\n\n"
    "It prints the content that the tool returns, or the JSON-RPC response. "
    "The tool's schema says what a value is: text, a number, true or false, null, or JSON. key:=JSON gives any JSON, "
    "key=@FILE the contents of a file, and a repeated key a list. One JSON object stands for all arguments. "
    "A name with a slash is a method, followed by its params as JSON.",
    "mcp-manager call fleet.toml files read path=/etc/hosts\n"
    "mcp-manager call http://host/mcp search q=mcp limit:=5\n"
    "mcp-manager call fleet.toml files tools/list '{}'",
    _fleet(
        "[SERVER] TOOL|METHOD [KEY=VALUE]... | [PARAMS_JSON]",
        _TIMEOUT,
        click.Option(["--tool", "kind"], flag_value="tool", help="The name is that of a tool."),
        click.Option(["--method", "kind"], flag_value="method", help="The name is that of a method."),
    ),
)
_verb(
    "logs",
    "logs:run",
    "Run one server and show its log.\n\n"
    "The log is what its program writes to standard error, and what the manager notes. Without --follow it ends once the server is up, or has failed.",
    "mcp-manager logs fleet.toml files --follow",
    _fleet("SERVER", _flag("-f", "--follow", about="Go on until Ctrl-C.")),
)
_verb(
    "login",
    "login:run",
    "Log in to a server that uses OAuth, in the browser.\n\n"
    "The tokens are stored in files that only you can read, and used by the other commands.",
    "mcp-manager login fleet.toml tracker\nmcp-manager login https://example.com/mcp",
    _fleet(
        "[SERVER]",
        click.Option(
            ["--browser/--no-browser"], default=True, help="Open a browser, or only print the URL.", show_default=True
        ),
    ),
)
_FORCE: Final = _flag("--force", about="Overwrite the file that --output names.")
_verb(
    "import",
    "importing:run",
    "Make one file of the servers in the files of MCP clients.\n\n"
    "It reads the files of all clients that are installed, or those of --from, and prints the servers as TOML. "
    "On standard error it says what it found, what cannot be taken over and which variables are needed. "
    "Secrets are not copied: a variable takes the place of each.",
    "mcp-manager import --output fleet.toml\nmcp-manager import --from .cursor/mcp.json",
    [
        _output("Write the servers to this file, which only you can read."),
        _FORCE,
        click.Option(
            ["--from", "sources"],
            type=click.Path(),
            multiple=True,
            metavar="FILE",
            help="Read this file, and no others but those of further --from.",
        ),
        click.Option(
            ["--project"],
            type=click.Path(exists=True, file_okay=False),
            metavar="DIR",
            help="Read the files of the project in this folder as well.",
        ),
        *_COMMON,
    ],
)
_verb(
    "schema",
    "schema:run",
    "Print the JSON Schema of the configuration file.\n\nEditors use it to complete and check the file.",
    "mcp-manager schema --output fleet.schema.json",
    [_output("Write the schema to this file."), _FORCE, *_COMMON],
)
_verb(
    "fault-server",
    "fault_server:run",
    "Run a server that fails as it is told to, to test clients in any language.\n\n"
    "It prints its URL. POST /__faults sets faults as JSON, DELETE /__faults clears them, and GET /__ledger says which tools were executed. It ends with Ctrl-C. With --stdio it is the program of a client, and prints on standard error.",
    "mcp-manager fault-server --port 8099 --tool book\n"
    """curl -d '{"fault": "reset", "after": "headers"}' http://127.0.0.1:8099/__faults""",
    [
        click.Option(
            ["--port"],
            type=click.IntRange(0, 65535),
            default=0,
            metavar="PORT",
            help="The port of 127.0.0.1 to listen on. Default: any free one.",
        ),
        click.Option(
            ["--era"],
            type=click.Choice(["handshake", "stateless"]),
            default="handshake",
            metavar="ERA",
            help="How it is spoken to: handshake (2025-11-25, the default) or stateless (2026-07-28).",
        ),
        _flag("--sse", about="Reply with event streams instead of JSON."),
        _flag("--stdio", about="Serve on standard input and output; faults are set over HTTP all the same."),
        click.Option(
            ["--tool", "tools"], multiple=True, metavar="NAME", help="A tool of it; may be repeated. Default: echo."
        ),
        click.Option(
            ["--fault", "faults"], multiple=True, metavar="JSON", help="A fault from the start; may be repeated."
        ),
        *_COMMON,
    ],
)
_verb(
    "help",
    "manual:show",
    "List the topics of the manual, or print one.",
    "mcp-manager help retries",
    [click.Argument(["topic"], required=False, metavar="[TOPIC]"), *_COMMON],
)
_verb(
    "completion",
    "completion:run",
    "Print the script for completion in a shell.\n\nThe shell then completes commands, options, files and the ids of servers. Put the line for your shell into the file that it reads at its start.",
    'eval "$(mcp-manager completion bash)"\neval "$(mcp-manager completion zsh)"\nmcp-manager completion fish | source',
    [click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish"), *_COMMON],
)
