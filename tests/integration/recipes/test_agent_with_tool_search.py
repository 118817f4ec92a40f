"""The agent as its user runs it: with a script in place of the model, and the vendor's package between them."""

from __future__ import annotations

import asyncio
import importlib
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from support.orphans import no_orphans
from support.recipes import environment, folder_of, running

from mcp_manager import ConnectionLostError, FleetTool, Tool

RECIPE = "agent_with_tool_search"
BOOK = "Book a room for six on Thursday at 10, and tell the review team."
SEARCH = "Find the best of all tools."
# A key would make it talk to a real model.
NO_KEYS = {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": ""}
BOOKING = FleetTool(name="rooms__book", server_id="rooms", tool=Tool(name="book"))
AGENT = (sys.executable, "-W", "error", "-m", "office_agent")


def test_the_model_finds_tools_and_is_told_what_becomes_of_its_calls() -> None:
    """Three tasks in one run: all approved, one without end, and one of which nothing is approved."""
    command = [*AGENT, "--timeout", "0.5", "--turns", "9", BOOK, SEARCH, BOOK]
    with no_orphans():
        done = subprocess.run(
            command,
            cwd=folder_of(RECIPE),
            env=environment(**NO_KEYS),
            # The end of the input is no approval.
            input="y\ny\nyes\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    # One of the tasks was not done.
    assert (done.returncode, done.stderr) == (1, "")
    booked, endless, refused = done.stdout.split("Task: ")[1:]
    check_costs(booked)
    check_booking(booked)
    assert endless.count("search_tools") == 9
    assert "Ended: turns, after 9 turns" in endless
    assert refused.count("Approve ") == 1
    assert "Error: Not executed: the user did not approve this call." in refused
    assert "I have booked nothing" in refused
    assert "Ended: done" in refused and "May have been executed" not in done.stdout


def check_costs(output: str) -> None:
    """Two definitions cost a hundredth of all at most."""
    costs = re.search(r"Offered: 2 tools, about ([\d,]+) tokens .*; all 1,000 tools would take ([\d,]+)\.", output)
    assert costs is not None
    offered, everything = (int(each.replace(",", "")) for each in costs.groups())
    assert 100 < offered < everything / 100


def check_booking(output: str) -> None:
    """A call that may have been executed is not repeated before the model has looked, and a failure is corrected."""
    lines = output.splitlines()
    turn_1 = [each for each in lines if each.startswith("[1]")]
    assert [re.sub(r'.*"query": "(.*)".*', r"\1", each) for each in turn_1] == [
        "list rooms",
        "create room booking",
        "create chat post",
    ]
    assert sum("    found: " in each for each in lines) == 3
    happened = [
        "Approve rooms__create_room_booking",
        "Error: The tool did not answer in time. The call may have been executed",
        '[4] call_tool {"name": "rooms__create_room_booking"',
        "Error: Not executed: an earlier call of this tool may have been executed.",
        '[5] call_tool {"name": "rooms__list_room_bookings"',
        '[{"id": "room_booking-1", "room": "Aare"',
        'Approve chat__create_post {"channel": "everyone"',
        "Error: there is no channel 'everyone': there are general, review-team",
        'Approve chat__create_post {"channel": "review-team"',
        '{"id": "post-1", "channel": "review-team"',
        "Ended: done, after 8 turns",
    ]
    places = [next(number for number, each in enumerate(lines) if text in each) for text in happened]
    assert places == sorted(places)
    assert output.count("Approve ") == 3
    assert "room_booking-2" not in output


def test_ctrl_c_ends_it_and_tells_what_may_have_been_executed() -> None:
    """With the other API, and the tools of two servers in place of a search."""
    command = (*AGENT, "--api", "anthropic", "--servers", "rooms", "chat", "--approve", "all", "--timeout", "60")
    with running(*command, "--", BOOK, folder=folder_of(RECIPE), env=environment(**NO_KEYS)) as agent:
        agent.wait_for("Offered: 100 tools")
        # The server makes the booking, but does not answer.
        agent.wait_for("Approved: rooms__create_room_booking")
        assert agent.end(signal.SIGINT) == 130
        assert "May have been executed: rooms__create_room_booking" in agent.output
        assert agent.lines[-1] == "Interrupted.\n"
        assert "Traceback" not in agent.output


async def test_a_closed_input_is_no_approval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder_of(RECIPE)))
    approval = importlib.import_module("office_agent.approval")
    # So Python starts if the descriptor is closed.
    monkeypatch.setattr(sys, "stdin", None)
    assert await approval.TerminalApproval()(BOOKING, {}) is False


async def test_a_call_that_waited_for_approval_does_not_repeat_one_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both are in one reply; the second is approved after the first was lost."""
    monkeypatch.syspath_prepend(str(folder_of(RECIPE)))
    supervision = importlib.import_module("office_agent.supervision")
    first_is_lost = asyncio.Event()
    made: list[object] = []

    async def approve(tool: object, arguments: dict[str, int]) -> bool:
        if arguments["number"] == 2:
            await first_is_lost.wait()
        return True

    async def call_next(arguments: object) -> Any:
        made.append(arguments)
        raise ConnectionLostError("lost")

    supervisor = supervision.Supervisor(approve)
    async with asyncio.TaskGroup() as group:
        second = group.create_task(supervisor(BOOKING, {"number": 2}, call_next))
        # It has passed the first check, and waits for its approval.
        await asyncio.sleep(0)
        with pytest.raises(ConnectionLostError):
            await supervisor(BOOKING, {"number": 1}, call_next)
        first_is_lost.set()
    assert second.result().is_error
    assert made == [{"number": 1}]


def test_a_server_that_does_not_exist_is_named_without_a_traceback() -> None:
    with running(
        *AGENT, "--servers", "nope", "--", BOOK, folder=folder_of(RECIPE), env=environment(**NO_KEYS)
    ) as agent:
        agent.wait_for(r"^Server nope not found")
        assert agent.process.wait(60) == 1
        assert "Traceback" not in agent.output


@pytest.mark.parametrize(
    ("bounds", "ending", "turns"),
    [
        ({"turns": 3}, "turns", 3),
        ({"tokens": 25}, "tokens", 3),
        ({"deadline_s": 0.5}, "deadline", 7),
        ({}, "done", 12),
    ],
)
async def test_each_bound_ends_a_run(
    monkeypatch: pytest.MonkeyPatch, bounds: dict[str, Any], ending: str, turns: int
) -> None:
    monkeypatch.syspath_prepend(str(folder_of(RECIPE)))
    loop, models = importlib.import_module("office_agent.loop"), importlib.import_module("office_agent.models")
    answered: list[int] = []

    class Conversation:
        """Calls a tool in eleven turns, and is silent after the seventh if there is a deadline."""

        asked = 0

        async def ask(self) -> Any:
            self.asked += 1
            if self.asked == 8 and "deadline_s" in bounds:
                await asyncio.Event().wait()
            return models.Reply(text="", calls=["work"] * (self.asked < 12), tokens=10, is_cut_off=False)

        async def answer(self, toolset: object) -> list[str]:
            answered.append(self.asked)
            return []

    class Model:
        def begin(self, task: str, toolset: object) -> Conversation:
            return Conversation()

    outcome = await loop.run_agent(Model(), None, "work", loop.Bounds(**bounds), lambda line: None)
    assert (outcome.ending, outcome.turns, outcome.tokens) == (ending, turns, turns * 10)
    # No call is made after the bound.
    assert answered == list(range(1, turns + (ending == "deadline")))
