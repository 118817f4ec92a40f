"""Commands that take a command line in place of a file, and the types of their arguments."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from mcp_manager.cli.options import CommandLine

__all__ = ["Source", "Verb", "Verbs", "Words"]


class Verbs(click.Group):
    """The program: its verbs in the order of their definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs in the order in which they are explained."""
        return list(self.commands)


class Verb(click.Command):
    """One verb of the program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words after ``--`` as the first argument, if it is a source."""
        takes_source = any(isinstance(each.type, Source) for each in self.params)
        if takes_source and "--" in args and not ctx.resilient_parsing:
            at = args.index("--")
            argv = args[at + 1 :]
            if not argv or argv[0].startswith("-"):
                raise click.UsageError("give the command line of a program after --", ctx)
            args = [CommandLine(argv), *args[:at]]
        return super().parse_args(ctx, args)


class Source(click.ParamType[str]):
    """A file, a URL or a command line."""

    name = "source"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value itself: it is a :class:`CommandLine` for words after ``--``."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete the names of files."""
        return [CompletionItem(incomplete, type="file")]


class Words(click.ParamType[str]):
    """The words after a source: the first of them is a server's id."""

    name = "words"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value itself."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete a server's id from the file that was named before."""
        from mcp_manager.cli.source import server_ids  # noqa: PLC0415 - for completion alone

        source = ctx.params.get("config")
        if not isinstance(source, str) or ctx.params.get("words"):
            return []
        return [CompletionItem(name) for name in server_ids(source) if name.startswith(incomplete)]
