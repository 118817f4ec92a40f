"""Sessions of the official SDK for Python, or of fastmcp: ``python_client.py SDK (URL PREFIX)...`` prints what each saw.

SDK is ``1``, ``2`` (the handshake), ``2-stateless``, ``fastmcp`` or ``fastmcp-stateless``. With a prefix that begins with
``search:``, the session finds the tools, and calls them through ``call_tool``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

from mcp import ClientSession
from mcp.types import CreateMessageResult, ElicitResult, TextContent

if sys.argv[1] == "1":
    from mcp.client.streamable_http import streamablehttp_client
elif sys.argv[1].startswith("fastmcp"):
    import fastmcp
    from mcp.client.subscriptions import listen
else:
    from mcp import Client

FORM = {"name": "Ada"}
WORDS = "a model's words"
REVISION = "2026-07-28"
SEARCH = "search:"


class Session:
    """What the tests need of a client, whatever its interface is."""

    def __init__(self, sdk: str, url: str, is_searching: bool) -> None:
        self.sdk = sdk
        self.url = url
        self.is_searching = is_searching
        self.changed = asyncio.Event()
        self.client: Any = None

    async def open(self, stack: AsyncExitStack) -> None:
        """Connect."""
        mode = REVISION if self.sdk.endswith("-stateless") else "legacy"
        if self.sdk.startswith("fastmcp"):
            self.client = await stack.enter_async_context(
                fastmcp.Client(
                    self.url,
                    mode=mode,
                    elicitation_handler=self._fill_in,
                    sampling_handler=self._say,
                    message_handler=self._take,
                )
            )
        elif self.sdk == "1":
            reading, writing, _ = await stack.enter_async_context(streamablehttp_client(self.url))
            self.client = await stack.enter_async_context(
                ClientSession(
                    reading,
                    writing,
                    elicitation_callback=self._elicit,
                    sampling_callback=self._sample,
                    message_handler=self._take,
                )
            )
            await self.client.initialize()
        else:
            self.client = await stack.enter_async_context(
                Client(
                    self.url,
                    mode=mode,
                    elicitation_callback=self._elicit,
                    sampling_callback=self._sample,
                    message_handler=self._take,
                )
            )

    async def call(self, name: str, arguments: dict[str, Any] | None = None, progress: Any = None) -> str:
        """Call a tool; return the text of its result."""
        if self.is_searching:
            return await self.call_listed("call_tool", {"name": name, "arguments": arguments or {}}, progress)
        return await self.call_listed(name, arguments or {}, progress)

    async def call_listed(self, name: str, arguments: dict[str, Any], progress: Any = None) -> str:
        """Call a tool that is listed; return the text of its result."""
        told = {} if progress is None else {self._progress: progress}
        result = await self.client.call_tool(name, arguments, **told)
        return str(result.content[0].text)

    async def listed(self, kind: str) -> list[Any]:
        """Return a list."""
        result = await getattr(self.client, f"list_{kind}")()
        return list(result if isinstance(result, list) else getattr(result, kind))

    async def read(self, uri: Any) -> str:
        """Return the text of a resource."""
        result = await self.client.read_resource(uri)
        return str((result if isinstance(result, list) else result.contents)[0].text)

    async def prompt(self, name: str) -> str:
        """Return the first text of a prompt."""
        return str((await self.client.get_prompt(name)).messages[0].content.text)

    async def change(self, name: str) -> bool:
        """Call the tool that says that the tools have changed; return whether the client heard it."""
        if not self.sdk.endswith("-stateless"):
            await self.call(name)
            await self.changed.wait()
            return True
        listening = (
            listen(self.client.session, tools_list_changed=True)
            if self.sdk.startswith("fastmcp")
            else self.client.listen(tools_list_changed=True)
        )
        async with listening as heard:
            await self.call(name)
            async for _ in heard:
                return True
        return False

    @property
    def _progress(self) -> str:
        return "progress_handler" if self.sdk.startswith("fastmcp") else "progress_callback"

    async def _elicit(self, *_: Any) -> Any:
        return ElicitResult(action="accept", content=dict(FORM))

    async def _sample(self, *_: Any) -> Any:
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text=WORDS), model="model")

    async def _fill_in(self, message: str, kind: Any, *_: Any) -> Any:
        return dict(FORM)

    async def _say(self, *_: Any) -> str:
        return WORDS

    async def _take(self, message: Any) -> None:
        if "ToolListChanged" in repr(type(getattr(message, "root", message))):
            self.changed.set()


async def seen_by(sdk: str, url: str, prefix: str) -> dict[str, Any]:
    """Run a session."""
    session = Session(sdk, url, prefix.startswith(SEARCH))
    prefix = prefix.removeprefix(SEARCH)
    progress: list[float] = []

    async def report(done: float, *_: Any) -> None:
        progress.append(done)

    async with AsyncExitStack() as stack:
        await session.open(stack)
        seen: dict[str, Any] = {"tools": [each.name for each in await session.listed("tools")]}
        if session.is_searching:
            seen["found"] = await session.call_listed("search_tools", {"query": "simple text response", "limit": 2})
            names = {"names": [f"{prefix}test_simple_text"]}
            seen["described"] = json.loads(await session.call_listed("describe_tools", names))["name"]
        seen["call"] = await session.call(f"{prefix}test_simple_text")
        await session.call(f"{prefix}test_tool_with_progress", progress=report)
        seen["progress"] = progress
        seen["elicitation"] = await session.call(f"{prefix}test_input_required_result_elicitation")
        seen["sampling"] = await session.call(f"{prefix}test_sampling", {"prompt": "Say it."})
        uri = next(each.uri for each in await session.listed("resources") if str(each.uri).endswith("static-text"))
        seen["resource"] = await session.read(uri)
        [name] = [each.name for each in await session.listed("prompts") if each.name == f"{prefix}test_simple_prompt"]
        seen["prompt"] = await session.prompt(name)
        if not session.is_searching:
            seen["changed"] = await session.change(f"{prefix}test_trigger_tool_change")
    return seen


async def main(sdk: str, *places: str) -> None:
    """Run one session after the other."""
    print(json.dumps([await seen_by(sdk, url, prefix) for url, prefix in zip(places[::2], places[1::2], strict=True)]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
