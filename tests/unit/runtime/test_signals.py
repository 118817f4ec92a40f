"""Handlers of signals: those before are called, too, and come back, whoever ends ours and wherever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from mcp_manager import ConfigError
from mcp_manager.runtime.signals import SignalHandler

NUMBER = signal.SIGUSR2


@pytest.fixture
def received() -> Iterator[list[str]]:
    received: list[str] = []
    before = signal.signal(NUMBER, lambda number, frame: received.append("before"))
    yield received
    signal.signal(NUMBER, before)


def elsewhere(work: object) -> None:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_both_handlers_are_called_and_the_first_comes_back(received: list[str]) -> None:
    first = signal.getsignal(NUMBER)
    handler = SignalHandler(NUMBER, lambda: received.append("ours"))
    signal.raise_signal(NUMBER)
    assert received == ["ours", "before"]
    handler.close()
    handler.close()
    assert signal.getsignal(NUMBER) is first


def test_a_handler_that_was_ended_on_another_thread_gives_way_with_the_next_signal(received: list[str]) -> None:
    first = signal.getsignal(NUMBER)
    handler = SignalHandler(NUMBER, lambda: received.append("ours"))
    elsewhere(handler.close)
    assert signal.getsignal(NUMBER) is not first
    signal.raise_signal(NUMBER)
    assert received == ["before"]
    assert signal.getsignal(NUMBER) is first


@pytest.mark.parametrize("on_main", [True, False])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_of_them_may_end_in_any_order(received: list[str], order: tuple[int, int], on_main: bool) -> None:
    first = signal.getsignal(NUMBER)
    handlers = [SignalHandler(NUMBER, lambda each=each: received.append(each)) for each in ("one", "two")]  # type: ignore[misc]
    signal.raise_signal(NUMBER)
    assert received == ["two", "one", "before"]
    received.clear()
    for each in order:
        if on_main:
            handlers[each].close()
        else:
            elsewhere(handlers[each].close)
        signal.raise_signal(NUMBER)
    assert (
        received == [["two", "one"][order[0]], "before", "before"] if order == (0, 1) else ["one", "before", "before"]
    )
    signal.raise_signal(NUMBER)
    assert signal.getsignal(NUMBER) is first


def test_a_handler_that_somebody_set_later_stays(received: list[str]) -> None:
    handler = SignalHandler(NUMBER, lambda: received.append("ours"))
    signal.signal(NUMBER, later := lambda number, frame: received.append("later"))
    handler.close()
    assert signal.getsignal(NUMBER) is later


def test_what_the_system_does_by_default_or_ignores_is_no_handler() -> None:
    for default in (signal.SIG_IGN, signal.SIG_DFL):
        before = signal.signal(NUMBER, default)
        received: list[str] = []
        handler = SignalHandler(NUMBER, lambda: received.append("ours"))  # noqa: B023 - called in this pass
        signal.raise_signal(NUMBER)
        handler.close()
        assert (received, signal.getsignal(NUMBER)) == (["ours"], default)
        signal.signal(NUMBER, before)


def test_another_thread_is_told() -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            SignalHandler(NUMBER, lambda: None)
        except ConfigError as error:
            failures.append(error)

    elsewhere(work)
    assert str(failures[0]) == "SIGUSR2 can be handled on the main thread only (call this method on the main thread)"
