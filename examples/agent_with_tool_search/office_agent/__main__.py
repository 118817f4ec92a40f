"""Run the agent: ``python -m office_agent --help``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from typing import Final

from mcp_manager import McpManager, McpManagerError
from mcp_manager.adapters import ToolSearch, Toolset, ToolsetOptions, estimated_tokens, openai_chat, select_tools

from .approval import TerminalApproval, approve_all, approve_none, described, printable
from .fleet import office
from .loop import Bounds, run_agent
from .models import AnthropicModel, Model, OpenAiModel
from .scripted_api import TASKS, scripted_api
from .supervision import Approve, Supervisor

_KEYS: Final = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_MODELS: Final = {"openai": "gpt-5.4-mini", "anthropic": "claude-sonnet-5-5"}
# What a model gets of one result, in characters, and of definitions, in tokens.
_MOST_TEXT: Final = 4000
_MOST_TOOL_TOKENS: Final = 12_000
_INTERRUPTED: Final = 130


class ModelError(Exception):
    """The API of the model failed, although its client has tried again."""


def main() -> int:
    """Work on the tasks of the command line; return 0 if the model was done with each, 1 if not."""
    options = _parser().parse_args()
    if not os.environ.get(_KEYS[options.api]) and not TASKS.keys() >= {*options.tasks}:
        known = "".join(f"\n  {each}" for each in TASKS)
        print(f"Without {_KEYS[options.api]}, the model is a script that knows these tasks:{known}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(work(options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("Interrupted.")
        return _INTERRUPTED
    except ModelError as error:
        print(f"The API of the model failed: {error}", file=sys.stderr)
        return 1
    except McpManagerError as error:
        # Of the fleet itself; failures of calls are told to the model.
        print(error, file=sys.stderr)
        return 1


async def work(options: argparse.Namespace) -> int:
    """Start the fleet and the model, and work on one task after the other."""
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does it: what is under way is cancelled, and everything is closed.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    approvals: dict[str, Approve] = {"all": approve_all, "none": approve_none, "ask": TerminalApproval()}
    bounds = Bounds(turns=options.turns, tokens=options.tokens, deadline_s=options.deadline)
    async with McpManager(office()) as manager, model_of(options.api) as model:
        endings = [
            await run_task(manager, model, task, approvals[options.approve], bounds, options) for task in options.tasks
        ]
    return 0 if set(endings) <= {"done"} else 1


async def run_task(
    manager: McpManager, model: Model, task: str, approve: Approve, bounds: Bounds, options: argparse.Namespace
) -> str:
    """Work on one task; return how it ended."""
    supervisor = Supervisor(approve)
    calling: ToolsetOptions = {"timeout": options.timeout, "max_text": _MOST_TEXT, "middleware": supervisor}
    toolset: Toolset
    if options.servers:
        toolset = await select_tools(manager, servers=options.servers, max_tokens=_MOST_TOOL_TOKENS, **calling)
    else:
        toolset = ToolSearch(manager, **calling)
    print(f"Task: {task}")
    print(await costs(manager, toolset))
    try:
        outcome = await run_agent(model, toolset, task, bounds, lambda line: print(printable(line), flush=True))
    finally:
        # After Ctrl-C, too: somebody has to look after these.
        for each in supervisor.unchecked:
            print(f"May have been executed: {described(each.tool, each.arguments)}", flush=True)
    print(f"Ended: {outcome.ending}, after {outcome.turns} turns and {outcome.tokens:,} tokens.\n", flush=True)
    return outcome.ending


async def costs(manager: McpManager, toolset: Toolset) -> str:
    """Say what the definitions take in each request, and what those of all tools would."""
    everything = await select_tools(manager)
    return (
        f"Offered: {len(toolset)} tools, about {_tokens(toolset):,} tokens in each request; "
        f"all {len(everything):,} tools would take {_tokens(everything):,}."
    )


def _tokens(toolset: Toolset) -> int:
    return estimated_tokens(json.dumps(openai_chat.definitions(toolset)))


@contextlib.asynccontextmanager
async def model_of(api: str) -> AsyncGenerator[Model]:
    """Yield a real model if there is a key, else the scripted one: the same code talks to both."""
    key, name = os.environ.get(_KEYS[api]), os.environ.get("AGENT_MODEL", _MODELS[api])
    async with contextlib.AsyncExitStack() as stack:
        # With a key, the package itself reads the key and the base URL from the environment.
        url = None if key else await stack.enter_async_context(scripted_api())
        if api == "anthropic":
            import anthropic  # noqa: PLC0415 - an option

            async with anthropic.AsyncAnthropic(api_key=key or "none", base_url=url) as client:
                try:
                    yield AnthropicModel(client, name)
                except anthropic.APIError as error:
                    raise ModelError(str(error)) from error
        else:
            import openai  # noqa: PLC0415 - not with the other API

            async with openai.AsyncOpenAI(api_key=key or "none", base_url=url and f"{url}/v1") as client:
                try:
                    yield OpenAiModel(client, name)
                except openai.APIError as error:
                    raise ModelError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="office_agent", description="An agent with the tools of an office.")
    parser.add_argument("tasks", nargs="*", default=list(TASKS)[:1], metavar="TASK", help="what to do")
    parser.add_argument("--api", choices=_KEYS, default="openai", help="whose API the model has")
    parser.add_argument("--approve", choices=["ask", "all", "none"], default="ask", help="who approves changes")
    parser.add_argument(
        "--servers", nargs="+", help="offer the tools of these servers, as many as fit, in place of a search"
    )
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds for each call of a tool")
    parser.add_argument("--turns", type=int, default=Bounds.turns, help="how many requests to the model")
    parser.add_argument("--tokens", type=int, default=Bounds.tokens, help="how many tokens")
    parser.add_argument("--deadline", type=float, default=Bounds.deadline_s, help="seconds for each task")
    return parser


if __name__ == "__main__":
    sys.exit(main())
