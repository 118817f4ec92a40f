"""Params of ``tools/call`` in forms that JSON readers of different languages read differently."""

from __future__ import annotations

import json

from hypothesis import strategies as st

__all__ = ["ALLOWED", "DENIED", "KEYS", "PARAMS", "escaped", "frames"]

ALLOWED = "echo"
DENIED = "add"

SPACE = st.sampled_from(["", "", "", " ", "\n", "\t "])


def escaped(text: str) -> st.SearchStrategy[str]:
    """Return JSON strings for a text, in which any characters are escaped."""
    forms = [st.sampled_from([json.dumps(char)[1:-1], f"\\u{ord(char):04x}", f"\\u{ord(char):04X}"]) for char in text]
    return st.tuples(*forms).map(lambda chars: f'"{"".join(chars)}"')


KEYS = st.one_of(
    escaped("name"),
    st.sampled_from(
        ['"name"', '"Name"', '"NAME"', '"name "', '"nam\\ud800e"', '"arguments"', '"_meta"', '"task"', '""']
    ),
)
"""Names of members, as JSON."""
NAMES = st.one_of(
    escaped(DENIED),
    escaped(ALLOWED),
    st.sampled_from(
        [
            *(
                f'"{DENIED}"',
                f'"{DENIED} "',
                f'" {DENIED}"',
                f'"{DENIED}\\u0000"',
                f'"{DENIED.upper()}"',
                '"\\u212badd"',
            ),
            *('"a\\ud800dd"', f'["{DENIED}"]', f'{{"name":"{DENIED}"}}', "null", "5", f'"{ALLOWED}"', '"\uff41dd"'),
        ]
    ),
)
VALUES = st.one_of(
    NAMES,
    st.sampled_from(
        ['{"text":"x","a":1,"b":2}', '{"text":"x","a":1,"b":2,"name":"add"}', '{"name":"add","name":"echo"}', "{}"]
    ),
)


@st.composite
def _objects(draw: st.DrawFn) -> str:
    count = draw(st.integers(0, 4))
    members = [f"{draw(SPACE)}{draw(KEYS)}{draw(SPACE)}:{draw(SPACE)}{draw(VALUES)}{draw(SPACE)}" for _ in range(count)]
    # Most often with what a call needs, so that many of them are executed where nothing forbids it.
    if draw(st.booleans()):
        members.append(f'{draw(SPACE)}"arguments":{{"text":"x","a":1,"b":2}}')
    if draw(st.booleans()):
        members.insert(draw(st.integers(0, len(members))), f'"name":{draw(NAMES)}')
    return f"{{{','.join(members)}{draw(SPACE)}}}"


PARAMS = _objects()
"""Objects with names, escapes and members of all sorts, as text."""


@st.composite
def frames(draw: st.DrawFn) -> str:
    """Return requests for ``tools/call``, with repeated members and odd forms of the request itself."""
    method = draw(escaped("tools/call") | st.just('"tools/call"'))
    params = draw(PARAMS | st.sampled_from([f'["{DENIED}",{{"a":1,"b":2}}]', "null"]))
    members = [f'"method":{method}', f'"params":{params}']
    members += draw(
        st.lists(
            st.sampled_from(
                [
                    *('"id":1', '"id":null', '"jsonrpc":"2.0"', '"method":"ping"', '"method":"tools/call"'),
                    *(f'"params":{{"name":"{DENIED}","arguments":{{"a":1,"b":2}}}}', f'"name":"{DENIED}"'),
                    *('"p\\u0061rams":{"name":"echo","arguments":{"text":"x"}}', '"Method":"tools/call"'),
                    f'"Params":{{"name":"{DENIED}","arguments":{{"a":1,"b":2}}}}',
                ]
            ),
            max_size=3,
        )
    )
    return f"{{{','.join(draw(st.permutations(members)))}}}"
