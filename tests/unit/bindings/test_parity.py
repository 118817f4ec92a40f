"""``PyMcpManager`` and ``McpManager`` compared, method by method, and the stubs with what their program makes."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from support import mirror_stubs

from mcp_manager import CallToolResult, FleetChange, ForCaller, McpManager, PyForCaller, PyMcpManager
from mcp_manager.bindings.manager import ForCallerMirror, McpManagerMirror
from mcp_manager.bindings.mirror import mirror, returned

PAIRS = ((McpManager, PyMcpManager), (ForCaller, PyForCaller))


def public(owner: type) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]


METHODS = [
    pytest.param(original, mirrored, name, id=f"{mirrored.__name__}.{name}")
    for original, mirrored in PAIRS
    for name in public(original)
    if callable(inspect.getattr_static(original, name))
]


def parameters(owner: type, name: str) -> list[inspect.Parameter]:
    return list(inspect.signature(inspect.getattr_static(owner, name)).parameters.values())


def result(owner: type, name: str) -> Any:
    method = inspect.getattr_static(owner, name)
    return returned(method) or inspect.signature(method).return_annotation


@pytest.mark.parametrize(("original", "mirrored"), PAIRS)
def test_every_public_name_is_there(original: type, mirrored: type) -> None:
    assert set(public(original)) - set(public(mirrored)) == set()
    for name in public(original):
        is_property = isinstance(inspect.getattr_static(original, name), property)
        assert isinstance(inspect.getattr_static(mirrored, name), property) is is_property, name


@pytest.mark.parametrize(("original", "mirrored", "name"), METHODS)
def test_a_method_and_its_twin_have_the_parameters_of_the_original(original: type, mirrored: type, name: str) -> None:
    wanted = parameters(original, name)
    for each in (name, f"{name}_async"):
        given = parameters(mirrored, each)
        assert [(one.name, one.kind) for one in given] == [(one.name, one.kind) for one in wanted]
        if name in vars(mirrored):
            # Written by hand: it may take more, such as a path instead of a configuration.
            for one, other in zip(given, wanted, strict=True):
                assert str(other.annotation) in str(one.annotation)
                assert one.default == other.default or other.default is inspect.Parameter.empty
        else:
            assert given == wanted


@pytest.mark.parametrize(("original", "mirrored", "name"), METHODS)
def test_a_method_blocks_and_its_twin_is_a_coroutine_function(original: type, mirrored: type, name: str) -> None:
    plain, twin = (inspect.getattr_static(mirrored, each) for each in (name, f"{name}_async"))
    assert not inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(twin)
    assert (plain.__name__, twin.__name__) == (name, f"{name}_async")
    assert [plain.__qualname__.rpartition(".")[2], twin.__qualname__.rpartition(".")[2]] == [name, f"{name}_async"]
    assert plain.__doc__ and twin.__doc__
    if name not in vars(mirrored) and name not in ("start", "stop"):
        assert plain.__doc__ == inspect.getattr_static(original, name).__doc__
        assert result(mirrored, name) in (result(original, name), FleetChange)
        assert result(mirrored, f"{name}_async") == result(original, name)


def test_a_manager_for_threads_takes_what_the_original_takes() -> None:
    (_, *wanted), (_, *given) = (
        list(inspect.signature(each).parameters.values()) for each in (McpManager, PyMcpManager)
    )
    assert given == wanted


@pytest.mark.parametrize("name", ["call_tool", "call_tool_async", "execute_raw", "deploy"])
def test_annotations_can_be_evaluated(name: str) -> None:
    hints = typing.get_type_hints(getattr(PyMcpManager, name))
    assert hints["return"] in (CallToolResult[Any], bytes, FleetChange)


def test_the_stubs_are_what_their_program_makes() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in mirror_stubs.DIRECTORY.glob("*.pyi")}
    assert found == mirror_stubs.stubs(), "run python -m support.mirror_stubs in tests"
    assert max(text.count("\n") for text in found.values()) <= 500


SOURCE = '''
from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

from mcp_manager.runtime.effects import takes_effect_at_once
from mcp_manager.verbs.client_side import ClientSide

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
LONG = 1


class Fields(TypedDict, total=False):
    url: str


class Sample(ClientSide):
    @overload
    async def fetch(self, name: str, /, *, into: None = None) -> dict[str, Any]: ...
    @overload
    async def fetch(self, name: str, /, *, into: type[T]) -> T: ...
    async def fetch(self, name: str, /, *, into: type[T] | None = None) -> Any:
        """Fetch a thing; see :meth:`add`.

        It has details.
        """

    def raw(self, *names: str, limit: int = LONG) -> Coroutine[Any, Any, bytes]:
        """Return bytes. And more."""

    @takes_effect_at_once
    async def add(self, name: str, **fields: Unpack[Fields]) -> None:
        """Add a thing."""

    def plain(self) -> Path:
        """Return a path."""

    @classmethod
    def make(cls) -> Sample:
        """Return what is not mirrored."""

    def _private(self) -> None:
        """Do nothing."""
'''
STUB = '''# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta
from pathlib import Path
from typing import Any, Unpack, overload

from sample_of_stubs import LONG, Fields, T

from mcp_manager.bindings.fleet_change import FleetChange
from mcp_manager.bindings.mirrors.client_side import ClientSideMirror

class SampleMirror(ClientSideMirror, metaclass=ABCMeta):
    """The public methods of :class:`Sample`, for callers on any thread and loop."""

    @overload
    def fetch(self, name: str, /, *, into: None = None) -> dict[str, Any]:
        """Fetch a thing; see :meth:`add`.

        It has details.
        """

    @overload
    def fetch(self, name: str, /, *, into: type[T]) -> T: ...
    @overload
    async def fetch_async(self, name: str, /, *, into: None = None) -> dict[str, Any]:
        """Fetch a thing; see :meth:`add`."""

    @overload
    async def fetch_async(self, name: str, /, *, into: type[T]) -> T: ...
    def raw(self, *names: str, limit: int = LONG) -> bytes:
        """Return bytes. And more."""

    async def raw_async(self, *names: str, limit: int = LONG) -> bytes:
        """Return bytes. And more. See :meth:`raw`."""

    def add(self, name: str, **fields: Unpack[Fields]) -> FleetChange:
        """Add a thing."""

    async def add_async(self, name: str, **fields: Unpack[Fields]) -> None:
        """Add a thing; see :meth:`add`."""

    def plain(self) -> Path:
        """Return a path."""

    async def plain_async(self) -> Path:
        """Return a path; see :meth:`plain`."""
'''


def test_a_stub_keeps_overloads_defaults_and_typed_keywords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample_of_stubs.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    sample = importlib.import_module("sample_of_stubs").Sample
    assert mirror_stubs.stub_of([sample]) == STUB
    mirrored = mirror(sample)
    assert {name for name in vars(mirrored) if not name.startswith("_")} == {
        name + twin for name in ("fetch", "raw", "add", "plain") for twin in ("", "_async")
    }


@pytest.mark.parametrize("mirrored", [McpManagerMirror, ForCallerMirror])
def test_help_shows_the_signature_and_the_docstring(mirrored: type) -> None:
    import pydoc  # noqa: PLC0415

    # From Python 3.13 on, a long signature has a line for each parameter.
    text = re.sub(r"(?<=[(,])\s+", " ", pydoc.plain(pydoc.render_doc(mirrored)).replace("\n |", "\n")).replace(
        "( ", "("
    )
    assert "call_tool(self, server_id: 'str | Selector', name: 'str'" in text
    assert "async call_tool_async(self, server_id: 'str | Selector'" in text
    assert "Call a tool and return its result; if the tool itself fails" in text
