"""The shipped manual: its topics as the command line shows them, and that it says all there is to say."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mcp_manager
from mcp_manager import CallError, McpManager, McpManagerError, PyMcpManager, config, errors
from mcp_manager.cli import main
from mcp_manager.cli.manual import Topic, nearest_topics, plain_text, table_of, topics
from mcp_manager.health import assessment, tally
from mcp_manager.observe.metric_families import FAMILIES, names_of
from mcp_manager.observe.metrics import BUILD
from mcp_manager.types import CallStatus, ServerState

ROOT = Path(__file__).resolve().parents[3]
MANUAL = (ROOT / "mcp_manager" / "README.md").read_text(encoding="utf-8")
TOPICS = topics()
STRUCTS = {
    name: kind
    for name in config.__all__
    if isinstance(kind := getattr(config, name), type) and issubclass(kind, msgspec.Struct)
}


def tables(topic: str) -> list[list[list[str]]]:
    """Return the tables of a topic, each as its rows, the header first."""
    found = re.findall(r"(?:^\|.*\n?)+", TOPICS[topic].text, re.MULTILINE)
    return [table_of(each.splitlines()) for each in found]


def table_with(topic: str, first: str) -> list[list[str]]:
    """Return the rows of the one table whose first column has this header."""
    (found,) = [rows for header, *rows in tables(topic) if header[0] == first]
    return found


def quoted(cell: str) -> list[str]:
    """Return what a cell has between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def field_tables() -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the name of each documented struct with the rows of its table."""
    for name, table in re.findall(r"^### .*: (\w+Config)\n\n((?:\|.*\n)+)", MANUAL, re.MULTILINE):
        header, *rows = table_of(table.splitlines())
        assert header == ["Field", "Type", "Default", "Meaning"]
        yield name, rows


# What it says


def test_every_field_of_every_configuration_is_explained() -> None:
    documented = dict(field_tables())
    assert set(documented) == set(STRUCTS)
    for name, rows in documented.items():
        assert sorted(cell for row in rows for cell in quoted(row[0])) == sorted(STRUCTS[name].__struct_fields__), name
        assert all(len(row) == 4 and all(row) for row in rows), name


@pytest.mark.parametrize("name", STRUCTS)
def test_the_defaults_are_those_of_the_code(name: str) -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(STRUCTS[name])}
    factories = {field.name: field.default_factory for field in msgspec.structs.fields(STRUCTS[name])}
    for cell, _, shown, _ in dict(field_tables())[name]:
        field = cell.strip("`")
        default: Any = defaults[field]
        if default is msgspec.NODEFAULT:
            default = factories[field]()  # type: ignore[operator]
        literal = re.fullmatch(r"`([^`]+)`", shown)
        if literal is not None:
            assert msgspec.json.decode(literal[1]) == msgspec.json.decode(msgspec.json.encode(default)), field
        else:
            in_words = default is None or isinstance(default, msgspec.Struct)
            assert in_words or field in ("instances", "client_version"), field


def test_the_budget_of_the_manager_is_shown_as_it_is() -> None:
    (shown,) = re.findall(r"default of `retry_budget` is `(\{.*\})`", MANUAL)
    budget = tomllib.loads(f"budget = {shown}")["budget"]
    assert budget == msgspec.to_builtins(config.RetryBudgetConfig(**budget)) | budget
    assert config.RetryBudgetConfig(**budget) == config.ManagerConfig().retry_budget


def test_every_metric_is_there_with_its_type_and_labels() -> None:
    families = {names_of(family)[-1]: (family.empty().type, sorted(family.labels)) for family in FAMILIES}
    families["mcp_build_info"] = ("info", sorted(BUILD))
    shown = {quoted(row[0])[0]: (row[1], sorted(quoted(row[2]))) for row in table_with("metrics", "Family")}
    assert shown == families
    words = quoted(TOPICS["metrics"].text.partition("Values of `status`:")[2])
    assert words == [status.label for status in CallStatus]


def test_every_error_is_there_with_its_bases_and_delivery() -> None:
    rows = {quoted(row[0])[0]: row for row in table_with("errors", "Error")}
    classes = {name: getattr(errors, name) for name in errors.__all__ if name.endswith("Error")}
    assert set(rows) == set(classes) - {"McpManagerError"}
    for name, (_, base, delivery, _) in rows.items():
        own = [each.__name__ for each in classes[name].__bases__ if each is not McpManagerError]
        assert quoted(base) == own, name
        assert quoted(delivery)[0] == classes[name].delivery, name
        assert getattr(mcp_manager, name) is classes[name]


def test_what_errors_carry_exists() -> None:
    error = CallError("x")
    for rows in [rows for header, *rows in tables("errors") if header[0] == "Attribute"]:
        for name in [name for row in rows for name in quoted(row[0])]:
            assert hasattr(error, name), name


def test_every_method_that_it_names_exists() -> None:
    for _, both, threads in table_with("starting", "To"):
        assert [name for name in quoted(both) if not (hasattr(McpManager, name) and hasattr(PyMcpManager, name))] == []
        assert [name for name in quoted(threads) if not hasattr(PyMcpManager, name) or hasattr(McpManager, name)] == []
    named = {name for row in table_with("calls", "Method") for name in quoted(row[0])}
    assert [name for name in named if not hasattr(McpManager, name)] == []
    handlers = {name for row in table_with("handlers", "Handler") for name in quoted(row[0])}
    assert handlers == set(mcp_manager.Handlers.__struct_fields__)


def test_every_state_and_reason_is_explained() -> None:
    assert {quoted(row[0])[0] for row in table_with("health", "State")} == {state.value for state in ServerState}
    reasons = {name for row in table_with("health", "Reason") for name in quoted(row[0])}
    known = assessment.PASSING | {assessment.RESTARTING, tally.STARTING, tally.DRAINING, tally.SETTLING, tally.UNPROBED}
    assert reasons == known | {"operator", "suspended", "circuit open", "not connected", "recovering"}


def test_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    verbs = set(re.findall(r"^  ([a-z][a-z-]+)  ", capsys.readouterr().out, re.MULTILINE))
    shown = {quoted(row[0])[0].split()[1] for row in table_with("command-line", "Command")}
    assert shown == verbs


def test_links_lead_to_topics() -> None:
    assert set(re.findall(r"\]\(#([^)]*)\)", MANUAL)) <= set(TOPICS)


# How it is shown


def test_every_topic_begins_with_a_short_summary() -> None:
    assert len(TOPICS) > 30
    for topic in TOPICS.values():
        assert re.fullmatch(r"[a-z-]{5,17}", topic.slug), topic.slug
        assert 20 <= len(topic.summary) <= 80 and topic.summary.endswith("."), topic.slug
        assert "`" not in topic.summary


def test_the_topics_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    shown = capsys.readouterr().out
    for topic in TOPICS.values():
        assert re.search(rf"^{topic.slug} +{re.escape(topic.summary)}$", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("slug", TOPICS)
def test_a_topic_is_printed_as_plain_text(slug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", slug]) == 0
    title, rule, _, *lines = capsys.readouterr().out.splitlines()
    assert (title, rule) == (TOPICS[slug].title, "=" * len(title))
    code = set("\n".join(re.findall(r"^```\w+\n(.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL)).splitlines())
    prose = [line for line in lines if line.strip() not in {each.strip() for each in code}]
    assert [line for line in prose if len(line) > 100] == []
    assert [line for line in prose if re.search(r"```|^\||\]\(|^#", line)] == []
    assert MANUAL.isascii()


@pytest.mark.parametrize("asked", ["Command line", "COMMAND_LINE", " command-line "])
def test_a_topic_is_found_in_any_spelling(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", asked]) == 0
    assert capsys.readouterr().out.startswith("Command line\n============\n\n")


@pytest.mark.parametrize(
    ("asked", "title"), [("logs", "Logs and events"), ("Auth", "Authorization"), ("serve", "Gateway"), ("call", None)]
)
def test_the_beginning_of_a_name_is_enough_if_only_one_topic_begins_so(
    asked: str, title: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", asked]) == (2 if title is None else 0)
    shown = capsys.readouterr()
    if title is None:
        assert "did you mean calls, callers" in shown.err
    else:
        assert shown.out.startswith(f"{title}\n===")


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("tools", "allowed-tools"),
        ("retry", "retries"),
        ("cirkuit-braker", "circuit-breaker"),
        ("max_response_bytes", "bounds, server-settings"),
        ("CircuitOpenError", "errors, outages"),
    ],
)
def test_an_unknown_topic_names_the_nearest(asked: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", asked]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(
        r"mcp-manager: no topic '.*' \(did you mean .*\? mcp-manager help lists the topics\)\n", shown.err
    )
    assert set(near.split(", ")) <= set(re.split(r"[ ,?]+", shown.err))


@pytest.mark.parametrize("asked", ["", "zzzz", "x" * 100_000, "\udcff"])
def test_nothing_is_near_what_is_no_word(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert nearest_topics(asked, TOPICS) == []
    assert main(["help", asked]) == 2
    assert re.fullmatch(r"mcp-manager: no topic .* \(mcp-manager help lists the topics\)\n", capsys.readouterr().err)


def test_markdown_becomes_plain_text() -> None:
    wide = "word " * 12
    text = f"""### `a`: B

**Bold** and [a link](#x), [another](https://e.test/), `code ** of *`.

- one
  more
- two

```bash
run  it
```

| A | B |
|---|---|
| `x` | 1 |

| Field | Type | Default | Meaning |
|---|---|---|---|
| `f` | text | `1` | {wide}|
"""
    assert plain_text(text, 40).splitlines() == [
        *["a: B", "----", ""],
        *["Bold and a link, another", "(https://e.test/), code ** of *.", ""],
        *["- one more", "- two", ""],
        *["    run  it", ""],
        *["A  B", "-  -", "x  1", ""],
        *["f (text; default: 1)", "    word word word word word word word", "    word word word word word"],
    ]


def test_code_in_a_wide_table_stays_as_it_is() -> None:
    table = f"| Field | Meaning |\n|---|---|\n| `a` | **grows** as `x ** y` and `* z *`, *never* {'so ' * 9}|"
    assert plain_text(table, 40).splitlines()[:2] == ["a", "    grows as x ** y and * z *, never so"]


def test_a_table_without_a_meaning_labels_its_cells() -> None:
    row = f"| a | {'b' * 30} |  | {'d' * 30} |"
    assert plain_text(f"| A | B | C | D |\n|---|---|---|---|\n{row}", 50).splitlines() == [
        *["a", f"    B: {'b' * 30}", f"    D: {'d' * 30}"]
    ]


def test_the_nearest_topics_are_those_that_mention_a_word_most() -> None:
    among = {
        slug: Topic(slug, slug, "", text)
        for slug, text in {"one": "wire", "two": "wire wire", "three": "wires", "four": "WIRE wire wire"}.items()
    }
    assert nearest_topics("wire", among) == ["four", "two", "one"]
