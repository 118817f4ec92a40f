"""Log levels that one principal sets say nothing about what another gets, whose calls have the same session upstream."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from support.principals import Keys, http_for
from support.session_clients import EventReader, MovedServer, SessionClient

from mcp_manager.gateway import Gateway


async def test_the_level_of_one_principal_is_not_that_of_another(tmp_path: Path) -> None:
    keys = Keys(tmp_path, "ann", "bob")
    async with MovedServer().running() as server, http_for(keys, "ann") as of_ann, http_for(keys, "bob") as of_bob:
        servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
        serve = {"listen": "127.0.0.1:0", "auth": keys.auth, "sessions": "shared"}
        async with Gateway({"servers": servers}, serve=serve) as gateway:
            url = f"{gateway.url}/servers/a/mcp"
            ann = await SessionClient(of_ann, url).begin({})
            bob = await SessionClient(of_bob, url).begin({})

            async def logged(client: SessionClient, name: str) -> list[str]:
                """Return the levels of the messages that reach a client, of one at each level in its call."""
                request = {"jsonrpc": "2.0", "id": name, "method": "tools/call"}
                response_of: Any = client.send({**request, "params": {"name": name, "arguments": {}}})
                async with asyncio.TaskGroup() as group:
                    sending = group.create_task(response_of)
                    call = await server.call(name)
                    for level in ("debug", "info", "error"):
                        call.send("notifications/message", {"level": level, "data": name})
                    call.reply()
                messages = await EventReader(sending.result()).rest()
                assert all(name in json.dumps(each) for each in messages)
                return [each["params"]["level"] for each in messages if "method" in each]

            for number, level in enumerate((None, "error", "debug")):
                if level is not None:
                    await ann.request("logging/setLevel", {"level": level})
                assert await logged(bob, f"bob{number}") == ["info", "error"]
            assert await logged(ann, "ann") == ["debug", "info", "error"]
            told = [each["params"]["level"] for _, each in server.received if each.get("method") == "logging/setLevel"]
            # Never less than others get without a level of their own.
            assert told == ["info", "debug"]
