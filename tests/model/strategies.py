"""Draws values of any declared type, within its bounds: what the tables say is what the tests send."""

import dataclasses
import enum
import functools
import types
from typing import Any, Union, get_args, get_origin

from hypothesis import strategies as st

from kohakuriver.model import host_api, runner_table
from kohakuriver.model.access import PERSONS
from kohakuriver.model.codec import MAX_SNOWFLAKE, JsonObject, Snowflake, hints_of, strip_optional
from kohakuriver.model.fields import FREE, MAX_INTEGER, Bounds, bounds_of
from kohakuriver.model.route import ByteStream, PlainText, Route
from kohakuriver.model.vps import SshKeyMode

MOUNTS = ("/data:/data", "/a b:/c:ro", "/x/y:/z:rw")
TARGETS = ("alpha", "alpha:1", "b-2.c_d::0", "n1:0::0,1,7")
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "additional_mounts": st.lists(st.sampled_from(MOUNTS), max_size=3),
    "SubmitVps.target": st.none() | st.sampled_from(TARGETS),
    "vps_backend": st.just("docker"),
    "targets": st.lists(st.sampled_from(TARGETS), max_size=3),
    "env_vars": st.dictionaries(st.from_regex(r"[A-Z_][a-z0-9_.-]{0,8}", fullmatch=True), st.just("v é"), max_size=3),
    "role": st.sampled_from(PERSONS),
    "since": st.none() | st.sampled_from(("2030-01-31T12:00:00Z", "2024-02-29T00:00:00.5+09:00")),
    "secret_env": st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True), st.just("v é"), max_size=3),
    "url": st.sampled_from(("http://127.0.0.1:8001", "https://n1.lan:1", "http://[::1]:80")),
    "registry_login": st.just("ada:pass w\u00f6rd:"),
}
SPECIAL["public_key"] = st.sampled_from(
    (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@laptop",
    )
)
SPECIAL["ssh_public_key"] = SPECIAL["public_key"]
TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def every_message() -> list[type]:
    """Every dataclass that the two tables mention, however deep."""
    found: dict[type, None] = {}
    for route in (*host_api.ROUTES, *runner_table.ROUTES):
        _collect(route.takes, found)
        _collect(route.gives, found)
    return list(found)


def routes() -> list[Route[Any, Any]]:
    return [*host_api.ROUTES, *runner_table.ROUTES]


@functools.cache  # a strategy remembers what it has found out about itself, and so do those that are made of it
def values(kind: Any, bounds: Bounds = FREE) -> st.SearchStrategy[Any]:
    """Any value of a declared type that its bounds allow."""
    inner, optional = strip_optional(kind)
    if optional:
        return st.none() | values(inner, bounds)
    origin, args = get_origin(inner), get_args(inner)
    if origin in (Union, types.UnionType):
        return st.one_of([values(a, bounds) for a in args])
    if origin in (list, tuple):
        unique = bounds.distinct or args[0] is int
        made = st.lists(values(args[0], bounds), min_size=bounds.fewest, max_size=min(3, bounds.count), unique=unique)
        return made.map(tuple) if origin is tuple else made
    if origin is dict:
        return st.dictionaries(st.text(TEXT, min_size=1, max_size=5), values(args[1], bounds), max_size=3)
    if inner is JsonObject:
        return st.dictionaries(st.text(TEXT, max_size=5), st.integers(0, 9) | st.lists(st.none(), max_size=2))
    if dataclasses.is_dataclass(inner):
        return records(inner)
    return _plain(inner, bounds)


def records(kind: Any) -> st.SearchStrategy[Any]:
    """Any valid value of a dataclass."""
    return _records(kind)


@functools.cache
def _records(kind: Any) -> st.SearchStrategy[Any]:
    hints = hints_of(kind)
    fields = dataclasses.fields(kind)
    members = {f.name: _member(kind, f, hints[f.name]) for f in fields}
    rivals = {f.name: bounds_of(f).not_with for f in dataclasses.fields(kind) if bounds_of(f).not_with}
    return st.fixed_dictionaries(members).map(lambda made: kind(**_consistent(made, rivals)))


def _member(kind: Any, f: "dataclasses.Field[Any]", hint: Any) -> st.SearchStrategy[Any]:
    special = SPECIAL.get(f"{kind.__name__}.{f.name}", SPECIAL.get(f.name))
    return values(hint, bounds_of(f)) if special is None else special


def _consistent(made: dict[str, Any], rivals: dict[str, str]) -> dict[str, Any]:
    """Of two members that exclude each other only one is given, and a key only where it is asked for."""
    if made.get("ssh_key_mode", SshKeyMode.UPLOAD) is not SshKeyMode.UPLOAD:
        made = made | {"ssh_public_key": None}
    return made | {name: None for name, rival in rivals.items() if made.get(name) and made.get(rival)}


def _plain(kind: Any, bounds: Bounds) -> st.SearchStrategy[Any]:
    if kind is Snowflake:
        return st.integers(1, MAX_SNOWFLAKE)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(list(kind))
    if kind is bool:
        return st.booleans()
    least = bounds.least if bounds.least is not None else -MAX_INTEGER
    most = bounds.most if bounds.most is not None else MAX_INTEGER
    if kind is int:
        return st.integers(int(least), int(most))
    if kind is float:
        return st.floats(least, most, allow_nan=False)
    assert kind is str, kind
    if bounds.pattern:
        wanted = st.from_regex(bounds.pattern, fullmatch=True, alphabet=TEXT)
        return wanted.filter(lambda t: bounds.shortest <= len(t) <= bounds.length)
    return st.text(TEXT, min_size=bounds.shortest, max_size=min(12, bounds.length))


def _collect(kind: Any, found: dict[type, None]) -> None:
    if kind in (ByteStream, PlainText):
        return
    for part in get_args(kind):
        _collect(part, found)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind not in found:
        found[kind] = None
        for hint in hints_of(kind).values():
            _collect(hint, found)
