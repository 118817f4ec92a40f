"""The names that telemetry uses, held against the constants that OpenTelemetry generates from its registry."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import opentelemetry.semconv
import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import mcp_metrics

from mcp_manager.telemetry import conventions
from mcp_manager.types import CallStatus

OWN = "mcp_manager."
WORDS = {"SCHEMA_URL", "AS_OF", "SCOPE", "EXECUTE_TOOL", "TOOL_ERROR"}
"""Constants that name no attribute."""
NAMES = {
    name: value
    for name, value in vars(conventions).items()
    if name.isupper() and isinstance(value, str) and name not in WORDS
}


def registered() -> set[str]:
    """Every attribute of the registry, those in development included."""
    found: set[str] = set()
    for package in ("opentelemetry.semconv.attributes", "opentelemetry.semconv._incubating.attributes"):
        for each in pkgutil.iter_modules(importlib.import_module(package).__path__):
            module: Any = importlib.import_module(f"{package}.{each.name}")
            found |= {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_attributes_are_those_of_the_registry_or_have_our_prefix() -> None:
    assert opentelemetry.semconv.__path__
    known = registered()
    theirs = {value for value in NAMES.values() if not value.startswith(OWN)}
    assert len(theirs) > 10
    assert theirs - known == set()
    assert conventions.METHOD in theirs
    assert {value for value in NAMES.values() if value.startswith(OWN)} & known == set()


def test_metrics_are_those_of_the_registry_or_have_our_prefix() -> None:
    theirs = [family for family in conventions.FAMILIES if not family.name.startswith(OWN)]
    known = {value for name, value in vars(mcp_metrics).items() if name.startswith("MCP_") and isinstance(value, str)}
    assert {family.name for family in theirs} <= known
    assert [family.name for family in theirs] == [mcp_metrics.MCP_CLIENT_OPERATION_DURATION]
    assert conventions.DURATION.unit == "s"
    assert conventions.DURATION.kind == "durations"


def test_a_tool_call_has_the_operation_of_the_registry() -> None:
    assert conventions.EXECUTE_TOOL == "execute_tool"
    assert conventions.OPERATION == gen_ai_attributes.GEN_AI_OPERATION_NAME


def test_every_family_is_in_the_table_once() -> None:
    families = [value for value in vars(conventions).values() if isinstance(value, conventions.Family)]
    assert sorted(families) == sorted(conventions.FAMILIES)
    assert len({family.name for family in families}) == len(families)


def test_errors_have_words_of_low_cardinality() -> None:
    assert all(status.label.replace("_", "").isalpha() for status in CallStatus)
