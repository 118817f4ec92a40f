"""Random rules of access: a list shows exactly what can be used, and nothing else is in any byte of any answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

import aiohttp
from hypothesis import given, settings
from hypothesis import strategies as st
from support.catalog_server import CatalogServer, tool
from support.examples import examples
from support.questioning import StatelessClient
from support.serve_changes import serve_with

from mcp_manager.config.access import AllowConfig
from mcp_manager.gateway import Gateway
from mcp_manager.gateway.endpoints.kinds import PROMPTS, RESOURCES, TOOLS, Kind
from mcp_manager.gateway.security.grants import Grant
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.rules import Rules

SERVERS = ("s0", "s1", "s2")
KEYS: dict[Kind, tuple[str, ...]] = {
    TOOLS: ("find", "kill"),
    PROMPTS: ("greet", "shout"),
    RESOURCES: ("pub/a", "sec/b"),
}
USES = {TOOLS: "tools/call", PROMPTS: "prompts/get", RESOURCES: "resources/read"}
FEW = ("s0", "s1")


def own_key(kind: Kind, server_id: str, key: str) -> str:
    """Return what a server calls something: no other server has the same."""
    return f"{server_id}r://{key}" if kind is RESOURCES else f"{key}{server_id[1]}"


def some(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


rules = st.builds(
    AllowConfig,
    principals=some("ana", "b*", "*"),
    claims=st.sampled_from([{}, {"group": "x"}, {"group": ("x", "y")}, {"deep.er": "z"}]),
    scopes=some("read", "write"),
    views=some("few", "f*", "*", "other"),
    servers=some("s0", "s1", "s*", "x"),
    tools=some("s0__find0", "*__find*", "s1__*", "*"),
    prompts=some("s0__greet0", "*__shout?", "s2__*"),
    resources=some("s0r://pub/a", "s1r://*", "*/sec/*", "*"),
    methods=some("tools/*", "*/call", "prompts/get", "resources/read", "completion/*", "*"),
)
principals = st.builds(
    Principal,
    st.sampled_from(["ana", "bob", "b#c"]),
    st.sampled_from([{}, {"group": "x"}, {"group": ["q", "y"]}, {"deep": {"er": "z"}}]),
    st.sets(st.sampled_from(["read", "write"])).map(frozenset),
)


def questions(grant: Grant) -> dict[str, bool]:
    """Return everything that a grant can be asked."""
    answers = {f"at {name}": bool(grant.at(name)) for name in ("fleet", "view/few", "server/s0")}
    for server_id in SERVERS:
        answers[f"shows {server_id}"] = grant.shows(server_id)
        answers[f"whole {server_id}"] = grant.shows_whole(server_id)
        answers[f"open {server_id}"] = grant.allows_all_of("skills/list", server_id)
        for kind, keys in KEYS.items():
            answers[f"{kind.member} {server_id}"] = grant.shows_kind(kind, server_id)
            for key in keys:
                own = own_key(kind, server_id, key)
                answers[f"entry {own}"] = grant.shows_entry(kind, server_id, own)
                answers[f"complete {own}"] = grant.permits("completion/complete", kind, server_id, own)
    return answers


@given(st.lists(rules, max_size=4), rules, principals)
def test_a_principal_may_use_what_any_of_its_rules_allows(
    given_rules: list[AllowConfig], another: AllowConfig, principal: Principal
) -> None:
    everything = Rules([*given_rules, another]).grant_of(principal)
    assert everything is not None
    alone = [Rules([each]).grant_of(principal) for each in (*given_rules, another)]
    apart = [questions(each) for each in alone if each is not None]
    assert questions(everything) == {name: any(each[name] for each in apart) for name in apart[0]}
    if not any(alone):
        assert not any(questions(everything).values())
    for server_id in SERVERS:
        # What is shown as a whole has no part that is hidden.
        if everything.shows_whole(server_id):
            assert all(value for name, value in questions(everything).items() if server_id in name.split())


@given(st.lists(rules, min_size=1, max_size=4), principals)
def test_principals_of_the_same_rules_share_what_is_kept(given_rules: list[AllowConfig], principal: Principal) -> None:
    found = Rules(given_rules)
    first = found.grant_of(principal)
    assert found.grant_of(Principal(principal.name, principal.claims, principal.scopes)) is first
    assert Rules([]).grant_of(principal) is None


def allows(rule: dict[str, Any], kind: Kind, server_id: str, own: str) -> bool:
    """Return whether a rule allows the use of something, by the words of the manual."""

    def fits(text: str, patterns: Any) -> bool:
        return any(fnmatchcase(text, each) for each in patterns)

    named = {TOOLS: "tools", PROMPTS: "prompts", RESOURCES: "resources"}
    if not fits(server_id, rule.get("servers", ("*",))) or not fits(USES[kind], rule.get("methods", ("*",))):
        return False
    if not any(name in rule for name in named.values()):
        return True
    return fits(own if kind is RESOURCES else f"{server_id}__{own}", rule.get(named[kind], ()))


def is_everything(rule: dict[str, Any]) -> bool:
    return not set(rule) & {"tools", "prompts", "resources", "methods"}


def applies(rule: dict[str, Any], path: str) -> bool:
    views = rule.get("views")
    if views is None:
        return True
    return "*" in views and path == "/mcp" if "/mcp/" not in path else any(fnmatchcase("few", each) for each in views)


served_rules = st.lists(
    rules.map(
        lambda rule: {
            name: list(value)
            for name in ("views", "servers", "tools", "prompts", "resources", "methods")
            if (value := getattr(rule, name))
        }
    ),
    min_size=1,
    max_size=3,
)


async def examine(gateway: Gateway, http: aiohttp.ClientSession, path: str, given_rules: list[dict[str, Any]]) -> None:
    """Compare all answers at a path with the rules."""
    shown_servers = {"/mcp": SERVERS, "/mcp/few": FEW}.get(path, ("s0",))
    here = [rule for rule in given_rules if applies(rule, path)]
    client = StatelessClient(http, f"{gateway.url}{path}")
    hidden: set[str] = set(SERVERS) - set(shown_servers)
    texts = [json.dumps((await client.send("server/discover")).message)]
    for kind, keys in KEYS.items():
        pairs = [(each, own_key(kind, each, key)) for each in SERVERS for key in keys]
        usable = {
            pair for pair in pairs if pair[0] in shown_servers and any(allows(rule, kind, *pair) for rule in here)
        }
        hidden |= {own for _, own in set(pairs) - usable}
        reply = await client.send(kind.method)
        texts.append(json.dumps(reply.message))
        listed = {each[kind.key] for each in reply.message.get("result", {}).get(kind.member, ())}
        assert {own for _, own in usable} == {name.rpartition("__")[2] for name in listed}
        for server_id, own in pairs:
            if path.startswith("/servers/") and any(map(is_everything, here)):
                # The server answers by itself, whatever the name is.
                continue
            for name in {own, own if kind is RESOURCES else f"{server_id}__{own}"}:
                member = {"uri": name} if kind is RESOURCES else {"name": name}
                answer = await client.send(USES[kind], member)
                is_used = "result" in answer.message
                assert is_used == (name in listed), (name, answer.message)
                if not is_used:
                    texts.append(json.dumps(answer.message).replace(name, ""))
    for text in texts:
        assert not [each for each in hidden if each in text], (sorted(hidden), text)


def test_what_is_listed_can_be_used_and_nothing_else_is_in_any_answer() -> None:
    with ExitStack() as stack, asyncio.Runner() as runner:
        servers = {}
        for server_id in SERVERS:
            lists = {
                "tools": [tool(own_key(TOOLS, server_id, key)) for key in KEYS[TOOLS]],
                "prompts": [{"name": own_key(PROMPTS, server_id, key)} for key in KEYS[PROMPTS]],
                "resources": [{"uri": own_key(RESOURCES, server_id, key), "name": "r"} for key in KEYS[RESOURCES]],
            }
            told = f"About {server_id}: {lists['tools'][1]['name']}"
            server = stack.enter_context(CatalogServer(lists, instructions=told))
            servers[server_id] = {"url": server.url, "protocol_version": "2025-11-25"}
        config = {"servers": servers, "views": {"few": {"servers": FEW, "names": "short"}}}
        gateway = Gateway(config, serve={"listen": "127.0.0.1:0"})
        http = runner.run(started(gateway))

        @settings(max_examples=examples(40), deadline=None)
        @given(served_rules, st.sampled_from(["/mcp", "/mcp/few", "/servers/s0/mcp"]))
        def check(given_rules: list[dict[str, Any]], path: str) -> None:
            runner.run(gateway.replace_serve(serve_with(gateway, allow=given_rules)))
            runner.run(examine(gateway, http, path, given_rules))

        try:
            check()
        finally:
            runner.run(http.close())
            runner.run(gateway.stop())


async def started(gateway: Gateway) -> aiohttp.ClientSession:
    await gateway.start()
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
