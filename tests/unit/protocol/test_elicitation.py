"""The answer to a form, filled in with the defaults of its schema."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_manager import ElicitationRequest, accept_with_defaults, elicitation_defaults

COLOURS = ["Red", "Green"]
TITLED = [{"const": "#F00", "title": "Red"}, {"const": "#0F0", "title": "Green"}]


@pytest.mark.parametrize(
    ("field", "default"),
    [
        ({"type": "string", "minLength": 3}, "John Doe"),
        ({"type": "string"}, ""),
        ({"type": "integer"}, 30),
        ({"type": "integer"}, 30.0),
        ({"type": "number"}, 95.5),
        ({"type": "number"}, 0),
        ({"type": "boolean"}, False),
        ({"type": "string", "enum": COLOURS}, "Green"),
        ({"type": "string", "enum": COLOURS, "enumNames": ["rot", "grün"]}, "Red"),
        ({"type": "string", "oneOf": TITLED}, "#0F0"),
        ({"type": "array", "items": {"type": "string", "enum": COLOURS}}, ["Red", "Green"]),
        ({"type": "array", "items": {"anyOf": TITLED}}, ["#F00"]),
        ({"type": "array", "items": {"anyOf": TITLED}}, []),
    ],
)
def test_a_default_that_fits_is_taken(field: dict[str, Any], default: Any) -> None:
    assert elicitation_defaults({"type": "object", "properties": {"x": {**field, "default": default}}}) == {
        "x": default
    }


@pytest.mark.parametrize(
    ("field", "default"),
    [
        ({"type": "string"}, 1),
        ({"type": "string"}, None),
        ({"type": "integer"}, 30.5),
        ({"type": "integer"}, True),
        ({"type": "integer"}, float("nan")),
        ({"type": "number"}, "1"),
        ({"type": "number"}, False),
        ({"type": "boolean"}, 0),
        ({"type": "string", "enum": COLOURS}, "Blue"),
        ({"type": "string", "oneOf": TITLED}, "Red"),
        ({"type": "array", "items": {"enum": COLOURS}}, ["Red", "Blue"]),
        ({"type": "array", "items": {"anyOf": TITLED}}, ["Red"]),
        ({"type": "array", "items": {"anyOf": TITLED}}, "#F00"),
        ({"type": "array"}, ["Red"]),
        ({"type": "object"}, {}),
        ({}, "untyped"),
        ({"type": ["string", "null"]}, "union"),
    ],
)
def test_a_default_that_does_not_fit_is_left_out(field: dict[str, Any], default: Any) -> None:
    properties = {"x": {**field, "default": default}, "y": {"type": "string", "default": "kept"}}
    assert elicitation_defaults({"properties": properties}) == {"y": "kept"}


def test_what_was_filled_in_counts() -> None:
    schema = {"properties": {"a": {"type": "string", "default": "x"}, "b": {"type": "integer", "default": 1}, "c": {}}}
    params = {"message": "?", "requestedSchema": schema}
    assert accept_with_defaults(params) == {"action": "accept", "content": {"a": "x", "b": 1}}
    assert accept_with_defaults(params, {"a": "y", "c": 2}) == {
        "action": "accept",
        "content": {"a": "y", "b": 1, "c": 2},
    }
    assert accept_with_defaults({"message": "?"}) == {"action": "accept", "content": {}}


def test_the_consent_to_a_url_has_no_content() -> None:
    request = ElicitationRequest(message="go", mode="url", url="https://example.com", elicitation_id="1")
    assert request.accept() == {"action": "accept"}
    assert accept_with_defaults(
        {"mode": "url", "requestedSchema": {"properties": {"x": {"default": 1}}}}, {"x": 1}
    ) == {"action": "accept"}
    assert (request.decline(), request.cancel()) == ({"action": "decline"}, {"action": "cancel"})
