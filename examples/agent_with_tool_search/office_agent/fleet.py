"""A fleet with 1,000 tools: 20 systems of an office, which run in memory.

Put your own fleet in its place: ``McpManager.from_file("fleet.toml")``.
"""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mcp import types
from mcp.server.lowlevel import Server

Kinds = Mapping[str, list[str]]
"""The kinds of records of a system, and what is stored of each."""

_SYSTEMS: Final = Path(__file__).with_name("systems.toml")
_STORED: Final[dict[str, dict[str, list[dict[str, Any]]]]] = {
    "rooms": {
        "room": [
            {"name": "Aare", "seats": 8, "equipment": "projector"},
            {"name": "Limmat", "seats": 4, "equipment": "whiteboard"},
        ]
    },
    "chat": {
        "channel": [
            {"name": "general", "topic": "Everything", "members": 80},
            {"name": "review-team", "topic": "The quarterly review", "members": 6},
        ]
    },
}


def office() -> dict[str, Server[Any]]:
    """Return the servers by id. The one for rooms does not answer its first booking, although it makes it."""
    systems: dict[str, Kinds] = tomllib.loads(_SYSTEMS.read_text(encoding="utf-8"))
    unanswered = {"rooms": {"create_room_booking"}}
    return {name: System(name, kinds, unanswered.get(name, set())).server() for name, kinds in systems.items()}


class System:
    """A system that stores records.

    Parameters
    ----------
    name
        Its name.
    kinds
        See :data:`Kinds`.
    unanswered
        The tools whose next call is executed but not answered.
    """

    def __init__(self, name: str, kinds: Kinds, unanswered: set[str]) -> None:
        self.name = name
        self._unanswered = unanswered
        self._fields = {_identifier(kind): fields for kind, fields in kinds.items()}
        self._records: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in self._fields}
        self._tools: dict[str, tuple[str, str]] = {}
        self._listed: list[types.Tool] = []
        for kind, fields in kinds.items():
            self._add_tools(kind, fields)
        for kind, records in _STORED.get(name, {}).items():
            for record in records:
                self._create(kind, record)

    def server(self) -> Server[Any]:
        """Return the MCP server of the system."""
        return Server(self.name, on_list_tools=self._list_tools, on_call_tool=self._call_tool)

    async def _list_tools(self, context: object, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=self._listed)

    async def _call_tool(self, context: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        verb, kind = self._tools.get(params.name, ("", ""))
        try:
            said: object = self._execute(verb, kind, dict(params.arguments or {}))
            is_error = False
        except (KeyError, ValueError) as error:
            said, is_error = str(error.args[0]), True
        if params.name in self._unanswered:
            self._unanswered.discard(params.name)
            await asyncio.Event().wait()
        text = said if isinstance(said, str) else json.dumps(said)
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)

    def _execute(self, verb: str, kind: str, arguments: dict[str, Any]) -> object:
        match verb:
            case "list":
                text = str(arguments.get("text", "")).lower()
                return [each for each in self._records[kind].values() if text in json.dumps(each).lower()]
            case "get":
                return self._record(kind, arguments)
            case "create":
                return self._create(kind, arguments)
            case "update":
                record = self._record(kind, arguments)
                self._check(kind, arguments)
                record.update(arguments)
                return record
            case "delete":
                return self._records[kind].pop(self._record(kind, arguments)["id"])
            case _:
                raise KeyError("there is no such tool")

    def _create(self, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._check(kind, arguments)
        records = self._records[kind]
        record = {"id": f"{kind}-{len(records) + 1}", **arguments}
        records[record["id"]] = record
        return record

    def _record(self, kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        found = self._records[kind].get(str(arguments.get("id")))
        if found is None:
            raise KeyError(f"there is no {kind} with the id {arguments.get('id')!r}")
        return found

    def _check(self, kind: str, arguments: Mapping[str, Any]) -> None:
        """Refuse fields that do not exist, and references to records that do not exist."""
        for field, value in arguments.items():
            if field != "id" and field not in self._fields[kind]:
                raise ValueError(f"a {kind} has no {field}: it has {', '.join(self._fields[kind])}")
            names = [each.get("name", each["id"]) for each in self._records.get(field, {}).values()]
            if field in self._records and value not in (*names, *self._records[field]):
                raise ValueError(f"there is no {field} {value!r}: there are {', '.join(names) or 'none'}")

    def _add_tools(self, kind: str, fields: list[str]) -> None:
        name, many = _identifier(kind), _plural(kind)
        stored = ", ".join(each.replace("_", " ") for each in fields)
        values: dict[str, Any] = {
            each: {"description": f"The {each.replace('_', ' ')} of the {kind}"} for each in fields
        }
        id_of: dict[str, Any] = {"id": {"type": "string", "description": f"The id of the {kind}"}}
        text = {"text": {"type": "string", "description": f"Only {many} that contain this text"}}
        self._add("list", name, f"list_{_identifier(many)}", f"List or search the {many} in {self.name}.", text, [])
        self._add("get", name, f"get_{name}", f"Read one {kind} in {self.name}: its {stored}.", id_of, ["id"])
        self._add("create", name, f"create_{name}", f"Create a {kind} in {self.name}, with {stored}.", values, fields)
        self._add("update", name, f"update_{name}", f"Change a {kind} in {self.name}.", {**id_of, **values}, ["id"])
        self._add("delete", name, f"delete_{name}", f"Delete a {kind} from {self.name} for good.", id_of, ["id"])

    def _add(
        self, verb: str, kind: str, tool: str, description: str, properties: dict[str, Any], required: list[str]
    ) -> None:
        self._tools[tool] = (verb, kind)
        schema = {"type": "object", "properties": properties, "required": required}
        annotations = types.ToolAnnotations(
            read_only_hint=verb in ("list", "get"),
            destructive_hint=verb in ("update", "delete"),
            idempotent_hint=verb != "create",
        )
        self._listed.append(
            types.Tool(name=tool, description=description, input_schema=schema, annotations=annotations)
        )


def _identifier(text: str) -> str:
    return text.replace(" ", "_").replace("-", "_")


def _plural(kind: str) -> str:
    if kind.endswith("y") and kind[-2] not in "aeiou":
        return f"{kind[:-1]}ies"
    return f"{kind}es" if kind.endswith(("s", "ch", "x")) else f"{kind}s"
