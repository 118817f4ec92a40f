"""The APIs of models: the parts of the loop that differ from vendor to vendor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from mcp_manager.adapters import Toolset, anthropic_messages, openai_chat

if TYPE_CHECKING:
    # Only one of them is in use, and either takes a second to import.
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

INSTRUCTIONS: Final = (
    "You work in an office with many systems. Search for the tools that a task needs, and use them. "
    "If a call may have been executed, look with a tool that only reads before you repeat it. "
    "If a call is not approved, do not try to reach the same by other means. "
    "When you are done, say in one or two sentences what you have done and what you have not."
)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A model's reply: its text, its calls as text, and what it took."""

    text: str
    calls: list[str]
    tokens: int
    is_cut_off: bool


class Conversation(Protocol):
    """One conversation with a model."""

    async def ask(self) -> Reply:
        """Send all messages so far, and keep the reply among them."""
        ...

    async def answer(self, toolset: Toolset) -> list[str]:
        """Make the calls of the last reply, all at once; keep the answers, and return them as text."""
        ...


class Model(Protocol):
    """A model, and how to reach it."""

    def begin(self, task: str, toolset: Toolset) -> Conversation:
        """Begin a conversation in which these tools are offered."""
        ...


@dataclass(frozen=True)
class OpenAiModel:
    """A model behind OpenAI's Chat Completions API, or one that speaks it."""

    client: AsyncOpenAI
    name: str

    def begin(self, task: str, toolset: Toolset) -> Conversation:
        return _OpenAiConversation(self, task, openai_chat.definitions(toolset))


class _OpenAiConversation:
    def __init__(self, model: OpenAiModel, task: str, tools: list[Any]) -> None:
        self._model = model
        self._tools = tools
        self._messages: list[Any] = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": task}]

    async def ask(self) -> Reply:
        completion = await self._model.client.chat.completions.create(
            model=self._model.name, messages=self._messages, tools=self._tools
        )
        choice = completion.choices[0]
        self._messages.append(choice.message)
        functions = [each.function for each in choice.message.tool_calls or () if each.type == "function"]
        return Reply(
            text=choice.message.content or "",
            calls=[f"{each.name} {each.arguments}" for each in functions],
            tokens=completion.usage.total_tokens if completion.usage else 0,
            is_cut_off=choice.finish_reason == "length",
        )

    async def answer(self, toolset: Toolset) -> list[str]:
        answers = await openai_chat.answers(toolset, self._messages[-1])
        self._messages.extend(answers)
        return [shown(each["content"]) for each in answers if each["role"] == "tool"]


@dataclass(frozen=True)
class AnthropicModel:
    """A model behind Anthropic's Messages API."""

    client: AsyncAnthropic
    name: str
    max_tokens: int = 4096

    def begin(self, task: str, toolset: Toolset) -> Conversation:
        return _AnthropicConversation(self, task, anthropic_messages.definitions(toolset))


class _AnthropicConversation:
    def __init__(self, model: AnthropicModel, task: str, tools: list[Any]) -> None:
        self._model = model
        self._tools = tools
        self._messages: list[Any] = [{"role": "user", "content": task}]

    async def ask(self) -> Reply:
        model = self._model
        message = await model.client.messages.create(
            model=model.name,
            max_tokens=model.max_tokens,
            system=INSTRUCTIONS,
            messages=self._messages,
            tools=self._tools,
        )
        self._messages.append({"role": "assistant", "content": message.content})
        return Reply(
            text="".join(each.text for each in message.content if each.type == "text"),
            calls=[f"{each.name} {json.dumps(each.input)}" for each in message.content if each.type == "tool_use"],
            tokens=message.usage.input_tokens + message.usage.output_tokens,
            is_cut_off=message.stop_reason == "max_tokens",
        )

    async def answer(self, toolset: Toolset) -> list[str]:
        answers = await anthropic_messages.answers(toolset, self._messages[-1])
        self._messages.extend(answers)
        blocks = [block for message in answers for block in message["content"]]
        return [shown("\n".join(part.get("text", "") for part in block["content"])) for block in blocks]


def shown(answer: str, length: int = 160) -> str:
    """Return an answer on one short line; of a search, the names of what was found."""
    try:
        found = json.loads(answer)["tools"]
        answer = "found: " + (", ".join(each["name"] for each in found) or "nothing")
    except (ValueError, TypeError, KeyError):
        answer = " ".join(answer.split())
    return answer if len(answer) <= length else f"{answer[:length]}…"
