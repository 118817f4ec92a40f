"""The prompts, resources, completions and skills that the official conformance suite asks for, the same for both eras."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

from _conformance_tools import PIXEL, WATCHED, Call, ToolFailure, elicitation, listed_tools

__all__ = ["CAPABILITIES", "EXTENSIONS", "INFO", "completion", "lists", "prompt", "resource", "skills"]

INFO: Final = {"name": "conformance-fixture", "version": "1.0.0"}
CAPABILITIES: Final[dict[str, Any]] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}
EXTENSIONS: Final[dict[str, Any]] = {"io.modelcontextprotocol/skills": {"directoryRead": True}}

_DIRECTORY: Final = "skill://pdf-processing"
_FILES: Final = {
    f"{_DIRECTORY}/SKILL.md": "---\nname: pdf-processing\ndescription: Fill and assemble PDF documents\n---\n\nRead FORMS.md.\n",
    f"{_DIRECTORY}/references/FORMS.md": "# Forms\n\nFill each field.\n",
}
_SKILL: Final[dict[str, Any]] = {
    "uri": f"{_DIRECTORY}/SKILL.md",
    "frontmatter": {"name": "pdf-processing", "description": "Fill and assemble PDF documents"},
    "resources": [
        {"uri": uri, "digest": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", "size": len(text.encode())}
        for uri, text in _FILES.items()
    ],
}
_DIRECTORIES: Final = {
    _DIRECTORY: [
        {"uri": f"{_DIRECTORY}/SKILL.md", "name": "SKILL.md", "mimeType": "text/markdown"},
        {"uri": f"{_DIRECTORY}/references", "name": "references", "mimeType": "inode/directory"},
    ],
    f"{_DIRECTORY}/references": [
        {"uri": f"{_DIRECTORY}/references/FORMS.md", "name": "FORMS.md", "mimeType": "text/markdown"}
    ],
}

_RESOURCES: Final[dict[str, dict[str, Any]]] = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PIXEL},
    WATCHED: {"mimeType": "text/plain", "text": "watched"},
    **{uri: {"mimeType": "text/markdown", "text": text} for uri, text in _FILES.items()},
}
_TEMPLATE: Final = re.compile(r"test://template/([^/]+)/data")
_PROMPTS: Final[dict[str, list[str]]] = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
    "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}


def lists() -> dict[str, dict[str, Any]]:
    """Return the results of all methods that list something."""
    resources = [
        {
            "uri": uri,
            "name": uri.rpartition("/")[2],
            "description": f"The resource {uri}.",
            "mimeType": held["mimeType"],
        }
        for uri, held in _RESOURCES.items()
    ]
    for each in resources:
        if each["uri"] == _SKILL["uri"]:
            each |= {key: _SKILL["frontmatter"][key] for key in ("name", "description")}
    prompts = [
        {
            "name": name,
            "description": f"The prompt {name} of the conformance suite.",
            "arguments": [{"name": each, "description": each, "required": True} for each in arguments],
        }
        for name, arguments in _PROMPTS.items()
    ]
    template = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
    return {
        "tools/list": {"tools": listed_tools()},
        "prompts/list": {"prompts": prompts},
        "resources/list": {"resources": resources},
        "resources/templates/list": {"resourceTemplates": [template]},
    }


def resource(uri: str, not_found: int) -> dict[str, Any]:
    """Return the contents of a resource; ``not_found`` is the code of the error that there is none."""
    held = _RESOURCES.get(uri)
    if held is not None:
        return {"contents": [{"uri": uri, **held}]}
    match = _TEMPLATE.fullmatch(uri)
    if match is None:
        raise ToolFailure(not_found, "Resource not found", {"uri": uri})
    data = {"id": match[1], "templateTest": True, "data": f"Data for ID: {match[1]}"}
    return {"contents": [{"uri": uri, "mimeType": "application/json", "text": json.dumps(data)}]}


def completion(params: dict[str, Any]) -> dict[str, Any]:
    """Return the completions of an argument."""
    typed = params["argument"]["value"]
    values = [each for each in ("paris", "park", "party", "testing") if each.startswith(typed)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


async def prompt(name: str, call: Call) -> dict[str, Any]:
    """Return a prompt."""
    given = call.arguments
    match name:
        case "test_simple_prompt":
            contents: list[dict[str, Any]] = [_text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            contents = [_text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]
        case "test_prompt_with_embedded_resource":
            held = {"uri": given.get("resourceUri"), "mimeType": "text/plain", "text": "Embedded for testing."}
            contents = [{"type": "resource", "resource": held}, _text("Please process the resource above.")]
        case "test_prompt_with_image":
            image = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
            contents = [image, _text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            question = elicitation("What context should the prompt use?", {"context": {"type": "string"}}, "context")
            answers = await call.ask({"user_context": question})
            contents = [_text(f"In the context of {answers['user_context'].get('content')}")]
        case _:
            raise ToolFailure(-32602, f"Unknown prompt: {name}")
    return {"messages": [{"role": "user", "content": each} for each in contents]}


def skills(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a method of the skills extension, ``None`` for any other method."""
    uri = params.get("uri")
    match method:
        case "skills/list":
            return {"skills": [_SKILL]}
        case "skills/get":
            if uri != _SKILL["uri"]:
                raise ToolFailure(-32602, "Unknown skill", {"uri": uri})
            return {"skill": _SKILL}
        case "resources/directory/read":
            if uri not in _DIRECTORIES:
                raise ToolFailure(-32602, "Not a directory", {"uri": uri})
            return {"resources": _DIRECTORIES[uri]}
    return None


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}
