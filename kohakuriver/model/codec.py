"""Typed values to and from JSON; nothing else crosses the wire.

Coders are compiled once per type. Servers decode strictly (an unknown field is an error that names it); clients
leave out what they do not know. Ids (`Snowflake`) are JSON strings, tuples are JSON arrays.
"""

import dataclasses
import enum
import functools
import json
import operator
import types
import typing
from collections.abc import Callable
from typing import Any, NewType, TypeVar, Union, cast, get_args, get_origin

from kohakuriver.model.errors import BadRequest
from kohakuriver.model.fields import FREE, MAX_INTEGER, Bounds, bounds_of

T = TypeVar("T")
Snowflake = NewType("Snowflake", int)
JsonObject = NewType("JsonObject", dict[str, Any])  # an object whose members nobody here interprets
Decode = Callable[[Any], Any]
Encode = Callable[[Any], Any]
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)  # to make one takes longer than to use it
MAX_SNOWFLAKE = 9 * 10**18 - 1  # fits the store's integers, and a pattern can say it; reached in the year 2091
NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "nothing",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a number that JSON or we do not have, until the field is known that shall not take it."""

    text: str

    def __str__(self) -> str:
        return self.text


def loads(text: str | bytes) -> Any:
    """JSON (bytes: UTF-8) to plain values, refusing what readers disagree about: duplicate keys, deep nesting.

    NaN, Infinity and endless whole numbers become `Unreadable`, which no field takes.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        return json.loads(text, object_pairs_hook=_object, parse_constant=Unreadable, parse_int=_integer)
    except RecursionError:
        raise BadRequest("body: nested too deeply") from None
    except UnicodeDecodeError:
        raise BadRequest("body: not UTF-8") from None
    except json.JSONDecodeError as broken:
        raise BadRequest(f"body: not JSON: {broken}") from None


def dumps(value: Any) -> str:
    """Plain values to compact JSON."""
    return _COMPACT.encode(value)


def decode(kind: type[T], raw: Any, *, strict: bool = True) -> T:
    """Build `kind` from plain JSON values; raises BadRequest naming the field."""
    try:
        made: T = _compiled_decoder(cast(Any, kind), strict)(raw)
        return made
    except Mismatch as mismatch:
        raise BadRequest(mismatch.told()) from None


def encode(value: Any) -> Any:
    """Plain JSON values of any dataclass (or list of them, enum, or plain value)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return encoder(type(value))(value)
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    return value.value if isinstance(value, enum.Enum) else value


def encode_text(value: Any) -> str:
    """JSON text of a typed value."""
    return dumps(encode(value))


def encoder(kind: Any, compact: bool = False) -> Encode:
    """The compiled encoder of a type (also of `list[T]` and unions, where the type is needed to find ids).

    A compact one leaves out members that have their default.
    """
    return _compiled_encoder(kind, compact)


@functools.cache
def _compiled_decoder(kind: Any, strict: bool) -> Decode:
    return _decoder(kind, FREE, strict)


@functools.cache
def _compiled_encoder(kind: Any, compact: bool) -> Encode:
    return _encoder(kind, compact) or _same


def hints_of(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields by name."""
    return _resolved_hints(kind)


@functools.cache
def _resolved_hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def strip_optional(kind: Any) -> tuple[Any, bool]:
    """The type without its `| None`, and whether it had one."""
    if get_origin(kind) in (Union, types.UnionType):
        rest = [a for a in get_args(kind) if a is not type(None)]
        if len(rest) < len(get_args(kind)):
            return functools.reduce(operator.or_, rest), True
    return kind, False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise BadRequest(f"{shown(twice)}: given twice")
    return made


def shown(name: str) -> str:
    """A name that somebody made up, short and on one line."""
    return name[:100] if name.isprintable() else repr(name[:100])


def _integer(digits: str) -> int | Unreadable:
    return int(digits) if len(digits) <= 20 else Unreadable(f"{digits[:20]}…")


def _decoder(kind: Any, bounds: Bounds, strict: bool) -> Decode:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(kind, bounds, strict)
    if origin in (list, tuple):
        return _sequence(origin, _decoder(args[0], bounds, strict), bounds)
    if origin is dict:
        return _mapping(_decoder(args[1], bounds, strict), bounds)
    if dataclasses.is_dataclass(kind):
        return _record(kind, strict)
    if kind is Snowflake:
        return _snowflake
    if kind is JsonObject:
        return _opaque
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enumerated(kind)
    return {str: _text, int: _whole, float: _number, bool: _flag}[kind](bounds)


class Mismatch(Exception):
    """A value is not what its field takes; the path to it is put together on the way out."""

    def __init__(self, reason: str, *path: str) -> None:
        super().__init__(reason)
        self.reason, self.path = reason, list(path)

    def at(self, part: str) -> "Mismatch":
        """The same, seen from one level further out."""
        self.path.insert(0, part)
        return self

    def told(self) -> str:
        """The path and the reason, such as `targets[0]: expected text, got a list`."""
        path = "".join(part if part.startswith("[") else f".{shown(part)}" for part in self.path).lstrip(".")
        return f"{path or 'body'}: {self.reason}"


def _wrong(wanted: str, raw: Any) -> Mismatch:
    got = str(raw) if type(raw) is Unreadable else NAMES.get(type(raw), type(raw).__name__)
    return Mismatch(f"expected {wanted}, got {got}")


def _opaque(raw: Any) -> Any:
    if type(raw) is not dict:
        raise _wrong("an object", raw)
    return raw


def _text(bounds: Bounds) -> Decode:
    def text(raw: Any) -> str:
        if type(raw) is not str:
            raise _wrong("text", raw)
        if len(raw) > bounds.length:
            raise Mismatch(f"longer than {bounds.length} characters")
        if len(raw) < bounds.shortest:
            raise Mismatch("must not be empty")
        if "\0" in raw:
            raise Mismatch("must not hold a NUL character")
        if not raw.isascii():
            _refuse_half_surrogates(raw)
        if not bounds.matches(raw):
            raise Mismatch(f"{raw[:60]!r} is not allowed here (must match {bounds.pattern})")
        return _checked(bounds, raw)

    return text


def _refuse_half_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Mismatch("holds half of a surrogate pair") from None


def _whole(bounds: Bounds) -> Decode:
    return _bounded(int, bounds)


def _number(bounds: Bounds) -> Decode:
    return _bounded(float, bounds)


def _bounded(kind: type[int] | type[float], bounds: Bounds) -> Decode:
    least = bounds.least if bounds.least is not None else -MAX_INTEGER
    most = bounds.most if bounds.most is not None else MAX_INTEGER

    def number(raw: Any) -> Any:
        if type(raw) is not kind:
            if type(raw) is int and kind is float:
                raw = float(raw)
            elif type(raw) is float and raw.is_integer():  # JSON has one kind of number: 2.0 is 2
                raw = int(raw)
            else:
                raise _wrong(NAMES[kind], raw)
        if not least <= raw <= most:
            raise Mismatch(f"{raw} is not between {_plainly(least)} and {_plainly(most)}")
        return _checked(bounds, raw) if bounds.check else raw

    return number


def _plainly(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _flag(bounds: Bounds) -> Decode:
    def flag(raw: Any) -> bool:
        if type(raw) is not bool:
            raise _wrong("true or false", raw)
        return raw

    return flag


def _checked(bounds: Bounds, value: T) -> T:
    if bounds.check is not None:
        try:
            bounds.check(value)
        except ValueError as reason:
            raise Mismatch(str(reason)) from None
    return value


def _snowflake(raw: Any) -> int:
    if type(raw) is int and 0 < raw <= MAX_SNOWFLAKE:
        return raw
    if type(raw) is str and 0 < len(raw) <= 19 and raw.isascii() and raw.isdigit() and raw[0] != "0":
        number = int(raw)
        if 0 < number <= MAX_SNOWFLAKE:
            return number
    raise Mismatch(f"expected an id (digits), got {str(raw)[:40]!r}")


def _enumerated(kind: type[enum.Enum]) -> Decode:
    by_value = {m.name.lower() if isinstance(m.value, int) else m.value: m for m in kind}

    def enumerated(raw: Any) -> enum.Enum:
        found = by_value.get(raw) if type(raw) is str else None
        if found is None:
            raise Mismatch(f"{str(raw)[:40]!r} is not one of {', '.join(by_value)}")
        return found

    return enumerated


def _union(kind: Any, bounds: Bounds, strict: bool) -> Decode:
    inner, optional = strip_optional(kind)
    if optional:
        decode_inner = _decoder(inner, bounds, strict)
        return lambda raw: None if raw is None else decode_inner(raw)
    by_json = {(list if get_origin(a) in (list, tuple) else a): _decoder(a, bounds, strict) for a in get_args(kind)}

    def union(raw: Any) -> Any:
        decode_as = by_json.get(type(raw)) or (by_json.get(int) if type(raw) is float else None)
        if decode_as is None:
            raise _wrong(" or ".join(NAMES[t] for t in by_json), raw)
        return decode_as(raw)

    return union


def _sequence(origin: Any, item: Decode, bounds: Bounds) -> Decode:
    def sequence(raw: Any) -> Any:
        if type(raw) is not list:
            raise _wrong("a list", raw)
        if len(raw) > bounds.count:
            raise Mismatch(f"more than {bounds.count} items")
        made: list[Any] = []
        try:
            made.extend(map(item, raw))
        except Mismatch as mismatch:
            raise mismatch.at(f"[{_first_bad(item, raw)}]") from None
        return made if origin is list else tuple(made)

    return sequence


def _first_bad(item: Decode, raw: list[Any]) -> int:
    for number, value in enumerate(raw):
        try:
            item(value)
        except Mismatch:
            return number
    raise AssertionError("one of them was bad just before")


def _mapping(item: Decode, bounds: Bounds) -> Decode:
    key = _text(Bounds(length=1024, shortest=1))

    def member(name: str, value: Any) -> Any:
        try:
            return item(value)
        except Mismatch as mismatch:
            raise mismatch.at(name) from None

    def mapping(raw: Any) -> dict[str, Any]:
        if type(raw) is not dict:
            raise _wrong("an object", raw)
        if len(raw) > bounds.count:
            raise Mismatch(f"more than {bounds.count} members")
        return _checked(bounds, {key(name): member(name, value) for name, value in raw.items()})

    return mapping


def _record(kind: Any, strict: bool) -> Decode:
    hints = hints_of(kind)
    fields = [f for f in dataclasses.fields(kind) if f.init]
    members = {f.name: _decoder(hints[f.name], bounds_of(f), strict) for f in fields}
    nothing = (dataclasses.MISSING, dataclasses.MISSING)
    required = frozenset(f.name for f in fields if (f.default, f.default_factory) == nothing)

    def record(raw: Any) -> Any:
        if type(raw) is not dict:
            raise _wrong("an object", raw)
        known = {}
        name = ""
        try:
            for name, value in raw.items():
                member = members.get(name)
                if member is not None:
                    known[name] = member(value)
                elif strict:
                    raise Mismatch("unknown field")
        except Mismatch as mismatch:
            raise mismatch.at(name) from None
        if not required <= known.keys():
            raise Mismatch("required", min(required - known.keys()))
        try:
            return kind(**known)
        except ValueError as reason:
            path, _, why = str(reason).partition(": ")
            raise Mismatch(why, path) from None

    return record


def _same(value: Any) -> Any:
    return value


def _encoder(kind: Any, compact: bool) -> Encode | None:
    """The encoder of a type, or None when its values are JSON already."""
    inner, optional = strip_optional(kind)
    origin, args = get_origin(inner), get_args(inner)
    if inner is Snowflake:
        return _optionally(str, optional)
    if origin in (list, tuple):
        item = _encoder(args[0], compact)
        return _optionally((lambda value: [item(v) for v in value]) if item else list, optional)
    if origin is dict:
        member = _encoder(args[1], compact)
        return _optionally(lambda value: {k: member(v) for k, v in value.items()}, optional) if member else None
    if dataclasses.is_dataclass(inner):
        return _optionally(_compact_encoder(inner) if compact else _record_encoder(inner), optional)
    if isinstance(inner, type) and issubclass(inner, enum.Enum):
        return _optionally(_enum_value, optional)
    if origin in (Union, types.UnionType):
        return _optionally(encode, optional)
    return None


def _enum_value(member: enum.Enum) -> Any:
    return member.name.lower() if isinstance(member.value, int) else member.value


def _optionally(encode_value: Encode, optional: bool) -> Encode:
    return (lambda value: None if value is None else encode_value(value)) if optional else encode_value


def _record_encoder(kind: Any) -> Encode:
    hints = hints_of(kind)
    plain = [f.name for f in dataclasses.fields(kind) if _encoder(hints[f.name], False) is None]
    coded = [(f.name, _encoder(hints[f.name], False) or _same) for f in dataclasses.fields(kind) if f.name not in plain]

    def record(value: Any) -> dict[str, Any]:
        made = {name: getattr(value, name) for name in plain}
        for name, encode_member in coded:
            made[name] = encode_member(getattr(value, name))
        return made

    return record


def _compact_encoder(kind: Any) -> Encode:
    hints = hints_of(kind)
    members = [(f.name, _default_of(f), _encoder(hints[f.name], True) or _same) for f in dataclasses.fields(kind)]

    def record(value: Any) -> dict[str, Any]:
        made = {}
        for name, default, encode_member in members:
            member = getattr(value, name)
            if member != default:
                made[name] = encode_member(member)
        return made

    return record


def _default_of(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
