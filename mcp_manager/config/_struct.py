"""The base class of all configuration structs, and the bounded types of their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from mcp_manager.config._problem import FieldProblem, shown
from mcp_manager.config._secret_forms import plain_forms
from mcp_manager.config._url import redact_url
from mcp_manager.serialization import Serializable, plain

__all__ = ["Count", "Jitter", "PositiveSeconds", "Rate", "RpcCode", "Seconds", "Settings", "as_section"]

S = TypeVar("S", bound="Settings")

_YEAR_S: Final = 31_536_000.0
_MASK: Final = "***"

Seconds = Annotated[float, Meta(ge=0.0, le=_YEAR_S)]
"""A duration in seconds, at most one year; the field says what zero means."""
PositiveSeconds = Annotated[float, Meta(gt=0.0, le=_YEAR_S)]
"""A duration in seconds, above zero and at most one year."""
Rate = Annotated[float, Meta(gt=0.0, le=1.0)]
"""A share of calls, above 0 and at most 1."""
Jitter = Annotated[float, Meta(ge=0.0, lt=1.0)]
"""The fraction by which a delay varies at random in both directions: 0.2 is ±20 %."""
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
"""A number of things, at least one."""
RpcCode = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
"""The code of a JSON-RPC error."""


class Settings(Serializable, msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of the configuration structs; ``repr`` and ``to_dict`` mask every field that may hold a credential.

    Masking goes by field name, so that no caller can forget it. Lists become tuples, and mappings become the structs
    that the fields hold.
    """

    _masked: ClassVar[frozenset[str]] = frozenset(
        {
            "key",
            "key_password",
            "token",
            "token_command",
            "headers_command",
            "headers",
            "env",
            "args",
            "extras",
            "client_secret",
            "private_key",
            "assertion",
            "idp_client_secret",
            "parameters",
            "hidden_texts",
            "session_keys",
        }
    )

    _urls: ClassVar[frozenset[str]] = frozenset(
        {
            "url",
            "issuer",
            "authorization_endpoint",
            "token_endpoint",
            "idp_token_endpoint",
            "client_metadata_url",
            "redirect_uri",
            "endpoint",
            "introspection_endpoint",
            "jwks_url",
        }
    )
    """The fields with URLs, in which only the credentials are masked."""

    _lists: ClassVar[tuple[str, ...]] = ()
    """The fields that may hold a tuple and whose default is none."""

    def __post_init__(self) -> None:
        shape = _shapes.get(type(self)) or _shape_of(type(self))
        # Nearly always all values are what they should be; this is C alone, because fleets have many servers.
        if not shape.kinds.issuperset(map(type, shape.values_of(self))):
            self._reshape(shape.names)

    def _reshape(self, names: tuple[str, ...]) -> None:
        """Make tuples of lists, and structs of mappings."""
        for name in names:
            value = getattr(self, name)
            default = self.__struct_defaults__[self.__struct_fields__.index(name)]
            if isinstance(value, list):
                msgspec.structs.force_setattr(self, name, tuple(value))
            elif isinstance(default, Settings) and isinstance(value, Mapping):
                msgspec.structs.force_setattr(self, name, as_section(type(default), value, name))

    def to_dict(self, *, reveal_secrets: bool = False) -> dict[str, Any]:
        """Return what differs from the defaults as plain data, under the names that a configuration file has.

        Parameters
        ----------
        reveal_secrets
            Whether to include credentials; otherwise every field that may hold one is masked, as in ``repr``.
        """
        # A server in memory is shown by its type.
        whole: dict[str, Any] = msgspec.json.decode(
            msgspec.json.encode(self, enc_hook=lambda each: type(each).__name__)
        )
        if reveal_secrets:
            return whole
        shown = {name: _shown(value) for name, value in self.__rich_repr__() if name in whole}
        hidden = sorted(getattr(self, "hidden_texts", ()), key=len, reverse=True)
        forms = tuple(dict.fromkeys(form for secret in hidden for form in plain_forms(secret)))
        without: dict[str, Any] = _without(shown, forms) if forms else shown
        return without

    def to_json(self, *, reveal_secrets: bool = False) -> bytes:
        """Return what :meth:`to_dict` returns as JSON."""
        return msgspec.json.encode(self.to_dict(reveal_secrets=reveal_secrets))

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in self._masked:
                value = _mask(value)
            elif name in self._urls and value is not None:
                # The constructor checks nothing, so it may be anything.
                several = isinstance(value, tuple | list) and all(isinstance(each, str) for each in value)
                value = (
                    redact_url(value) if isinstance(value, str) else tuple(map(redact_url, value)) if several else value
                )
            elif name == "server" and value is not None:
                value = type(value).__name__
            elif name == "proxy" and value not in (None, "", "env"):
                value = redact_url(value)
            fields.append((name, value))
        return fields

    def __repr__(self) -> str:
        text = f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"
        # They may be part of any field, such as a path. The longest first, because one may contain another.
        for secret in sorted(getattr(self, "hidden_texts", ()), key=len, reverse=True):
            for form in dict.fromkeys((*plain_forms(secret), repr(secret)[1:-1])):
                text = text.replace(form, _MASK)
        return text


class _Shape(NamedTuple):
    """The fields of a struct that hold tuples or structs, how to read them, and the types that they should have."""

    names: tuple[str, ...]
    values_of: Callable[[Settings], tuple[Any, ...]]
    kinds: frozenset[type]


_shapes: Final[dict[type[Settings], _Shape]] = {}


def _shape_of(kind: type[Settings]) -> _Shape:
    fields = dict(zip(kind.__struct_fields__, kind.__struct_defaults__, strict=True))
    names = tuple(
        name for name, default in fields.items() if isinstance(default, tuple | Settings) or name in kind._lists
    )
    # Of a single name, attrgetter() returns the value and no tuple.
    read: Callable[[Settings], tuple[Any, ...]] = attrgetter(*names, *names[:1]) if names else _nothing
    shape = _Shape(names, read, frozenset({tuple, str, type(None), *(type(fields[name]) for name in names)}))
    _shapes[kind] = shape
    return shape


def _nothing(settings: Settings) -> tuple[Any, ...]:
    return ()


def as_section(kind: type[S], value: Mapping[str, Any], path: str) -> S:
    """Return a mapping as a struct; raises :class:`ConfigError` for a field that the struct does not have."""
    for name in value:
        if name not in kind.__struct_fields__:
            import difflib  # noqa: PLC0415 - importing the package must not load it

            near = difflib.get_close_matches(str(name)[:64], kind.__struct_fields__, n=1, cutoff=0.65)
            hint = f"did you mean {near[0]!r}?" if near else f"the known fields are {', '.join(kind.__struct_fields__)}"
            raise FieldProblem(path, f"unknown field {shown(str(name))}", hint).error("Invalid config")
    return kind(**value)


def _shown(value: object) -> object:
    """Return a value as plain data, with the credentials in it masked."""
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    return plain(value)


def _without(value: Any, forms: tuple[str, ...]) -> Any:
    """Return plain data with texts masked."""
    if isinstance(value, dict):
        return {name: _without(each, forms) for name, each in value.items()}
    if isinstance(value, list):
        return [_without(each, forms) for each in value]
    if isinstance(value, str):
        for form in forms:
            value = value.replace(form, _MASK)
    return value


def _mask(value: object) -> object:
    """Show that a value is set, and the names of its members, without the value itself."""
    if isinstance(value, dict):
        return dict.fromkeys(value, _MASK)
    if isinstance(value, tuple):
        return (_MASK,) * len(value)
    return _MASK if value is not None else None
