"""Measures the search of tools: which tool comes first, the time of building and searching, and the bytes of the list.

    python benchmarks/bench_tool_search.py [FLEET] [--tools 1000 10000]

FLEET is a configuration file with published servers, which are started and asked for their tools; those that do not
start are left out. Queries whose answers are among no server's tools are left out, too. :data:`SERVERS` says which
packages the queries are for. Without FLEET, only the times of made-up catalogues are measured: processor time of all
threads, the best of :data:`ROUNDS`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec

from mcp_manager import McpManager, McpManagerError
from mcp_manager.config.load import load_fleet_file
from mcp_manager.gateway.endpoints.kinds import TOOLS
from mcp_manager.gateway.endpoints.listings import read_entries
from mcp_manager.gateway.tool_search.meta_tools import META_TOOLS
from mcp_manager.gateway.tool_search.tool_index import IndexedTool, ToolIndex

ROUNDS = 5
LIMIT = 5
START_S = 60.0
WORDS = 2_000

SERVERS = (
    "npm: @playwright/mcp, @cyanheads/git-mcp-server, mcp-shrimp-task-manager, fast-filesystem-mcp,"
    " @modelcontextprotocol/server-memory, @modelcontextprotocol/server-filesystem, @coo-quack/calc-mcp, @primeng/mcp,"
    " @allpepper/memory-bank-mcp; PyPI: excel-mcp-server, office-word-mcp-server, mcp-server-fetch, mcp-server-git,"
    " mcp-server-time"
)

# Several tools may be right, some of them on several servers.
ANSWERS = {
    "take a screenshot of the page": "browser_take_screenshot",
    "click a button on a web page": "browser_click",
    "open a url in the browser": "browser_navigate",
    "fill in a form": "browser_fill_form",
    "commit staged changes": "git_commit",
    "show the commit history": "git_log",
    "create a new branch": "git_branch git_create_branch",
    "what changed in the working tree": "git_status git_diff git_diff_unstaged",
    "push commits to the remote repository": "git_push",
    "read the content of a text file": "read_text_file fast_read_file read_file",
    "list the files in a directory": "list_directory fast_list_directory",
    "move or rename a file": "move_file fast_move_file",
    "search for files by name": "search_files fast_search_files",
    "find text inside files": "fast_search_code fast_search_files",
    "replace text in a file": "edit_file fast_edit_block fast_safe_edit fast_edit_multiple_blocks",
    "add entities to the knowledge graph": "create_entities",
    "delete relations between entities": "delete_relations",
    "current time in Tokyo": "get_current_time",
    "convert time between timezones": "convert_time",
    "add a table to a word document": "add_table",
    "convert a word document to pdf": "convert_to_pdf",
    "write data to excel cells": "write_data_to_excel",
    "create a pivot table": "create_pivot_table",
    "draw a chart in a spreadsheet": "create_chart",
    "merge cells": "merge_cells merge_table_cells",
    "download a web page as markdown": "fetch",
    "split a big task into subtasks": "split_tasks",
    "delete a task": "delete_task",
    "hash a string with sha256": "hash",
    "generate a uuid": "random generate_uuid",
    "encode text as base64": "base64",
    "password protect a document": "protect_document add_password_protection",
    "add a footnote": "add_footnote_to_document",
    "rename sheet": "rename_worksheet",
    "stash my changes": "git_stash",
    "who wrote this line": "git_blame",
}


async def tools_of(path: str) -> list[IndexedTool]:
    """Return the tools of the servers in a file, as a view of all of them shows them."""
    found: list[IndexedTool] = []
    async with McpManager() as manager:
        for server_id, config in load_fleet_file(path).config.servers.items():
            try:
                async with asyncio.timeout(START_S):
                    await manager.deploy(server_id, config)
                    entries = await manager._list(server_id, TOOLS.method, TOOLS.field, msgspec.Raw, None)
            except (McpManagerError, TimeoutError) as error:
                print(f"{server_id} is left out: {error}", file=sys.stderr)
                continue
            for each in read_entries(entries, TOOLS):
                name = f"{server_id}__{each.key}"
                found.append(IndexedTool(name, server_id, each.renamed(name)))
    return found


def recall(tools: list[IndexedTool]) -> None:
    """Print how often a right tool comes first, and among the first five."""
    index = ToolIndex(tools)
    asked = first = among = 0
    for query, answers in ANSWERS.items():
        right = {each.name for each in tools if each.name.partition("__")[2].replace("-", "_") in answers.split()}
        if not right:
            continue
        found = [each.name for each in index.search(query, LIMIT)]
        asked += 1
        first += bool(right.intersection(found[:1]))
        among += bool(right.intersection(found))
        if not right.intersection(found):
            print(f"  not found: {query!r}: {', '.join(found[:3])}")
    listed, searched = sum(len(each.raw) for each in tools), sum(map(len, META_TOOLS.values()))
    print(f"{len(tools)} tools of {len({each.server_id for each in tools})} servers, {asked} queries")
    if asked:
        print(f"  a right tool is first: {first / asked:.0%}, among five: {among / asked:.0%}")
    print(f"  bytes of the list: {listed:,}, of the three tools in its place: {searched:,}")


def made_up(count: int) -> list[IndexedTool]:
    """Return tools with words of which few are frequent, as in texts."""
    draw = random.Random(count)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(WORDS)]
    weights = [1 / (rank + 1) for rank in range(WORDS)]

    def text(length: int) -> str:
        return " ".join(draw.choices(words, weights, k=length))

    tools = []
    for number in range(count):
        name = f"server{number % 20}__{text(2).replace(' ', '_')}_{number}"
        fields = {each: {"type": "string", "description": text(6)} for each in text(5).split()}
        definition: dict[str, Any] = {
            "name": name,
            "description": text(30),
            "inputSchema": {"type": "object", "properties": fields},
        }
        tools.append(IndexedTool(name, f"server{number % 20}", msgspec.json.encode(definition)))
    return tools


def best_ms(do: Callable[[], object]) -> float:
    """Return the processor time of something in milliseconds."""

    def once() -> float:
        start = time.process_time()
        do()
        return time.process_time() - start

    return min(once() for _ in range(ROUNDS)) * 1e3


def times(label: str, tools: list[IndexedTool], queries: Iterable[str]) -> None:
    """Print what building an index takes, and a search."""
    index = ToolIndex(tools)
    taken = [best_ms(lambda query=query: index.search(query, LIMIT)) for query in queries]  # type: ignore[misc]
    built = best_ms(lambda: ToolIndex(tools))
    print(f"{label}: build {built:.1f} ms, search {sum(taken) / len(taken):.2f} ms, at most {max(taken):.2f} ms")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", nargs="?", help=f"a configuration with these servers: {SERVERS}")
    parser.add_argument("--tools", type=int, nargs="*", default=[1_000, 10_000], help="sizes of made-up catalogues")
    options = parser.parse_args()
    if options.fleet:
        tools = asyncio.run(tools_of(options.fleet))
        recall(tools)
        times(f"{len(tools)} tools", tools, ANSWERS)
    for count in options.tools:
        tools = made_up(count)
        words = " ".join(each.name.replace("_", " ") for each in tools[:6]).split()
        queries = [" ".join(words[start : start + 4]) for start in range(0, len(words) - 4, 4)]
        times(f"{count:,} made-up tools", tools, [*queries, " ".join(words[:12])])


if __name__ == "__main__":
    main()
