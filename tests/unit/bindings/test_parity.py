"""``PyMcpManager`` and ``McpManager`` compared, method by method, and the stubs with what their program makes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from support import mirror_stubs

from mcp_manager import ForCaller, McpManager, PyForCaller, PyMcpManager
from mcp_manager.bindings.manager import ForCallerMirror, McpManagerMirror
from mcp_manager.bindings.mirror import returned

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
        assert result(mirrored, name) in (result(original, name), "FleetChange")
        assert result(mirrored, f"{name}_async") == result(original, name)


def test_the_stubs_are_what_their_program_makes() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in mirror_stubs.DIRECTORY.glob("*.pyi")}
    assert found == mirror_stubs.stubs(), "run python -m support.mirror_stubs in tests"
    assert max(text.count("\n") for text in found.values()) <= 500


@pytest.mark.parametrize("mirror", [McpManagerMirror, ForCallerMirror])
def test_help_shows_the_signature_and_the_docstring(mirror: type) -> None:
    import pydoc  # noqa: PLC0415

    text = pydoc.plain(pydoc.render_doc(mirror))
    assert "call_tool(self, server_id: 'str | Selector', name: 'str'" in text
    assert "async call_tool_async(self, server_id: 'str | Selector'" in text
    assert "Call a tool and return its result; if the tool itself fails" in text
