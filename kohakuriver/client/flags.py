"""Options computed from the fields of a request: what a person types becomes the plain values of the field."""

import argparse
import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from kohakuriver.model.codec import Snowflake, hints_of, strip_optional
from kohakuriver.model.fields import bounds_of
from kohakuriver.model.units import parse_bytes, parse_seconds, show_bytes, show_seconds

Parse = Callable[[str], Any]
FEW = 3  # so many choices can stand in the place of the value's name
REFUSED = (ValueError, argparse.ArgumentTypeError)


class Spelling(NamedTuple):
    """How a field is typed where its own name, meaning or reading do not serve a person.

    `flag` is a short option letter; `complete` names what the shell offers (see `completion`).
    """

    name: str = ""
    flag: str = ""
    about: str = ""
    metavar: str = ""
    parse: Parse | None = None
    complete: str = ""


def by_id(field: str, metavar: str) -> Mapping[str, Spelling]:
    """How the one field that is an id is typed."""
    return {field: Spelling(about="Its id.", metavar=metavar, parse=whole_id)}


class Form(NamedTuple):
    """How the fields of one request appear on the command line."""

    kind: type
    positional: frozenset[str] = frozenset()
    many: bool = False  # the positional fields take several words: one request each
    hidden: frozenset[str] = frozenset()
    spelled: Mapping[str, Spelling] = {}

    def fields(self) -> list["dataclasses.Field[Any]"]:
        """Those of the request that can be typed: first the ones that are spelled, in that order."""
        known = [f for f in dataclasses.fields(self.kind) if f.name not in self.hidden]
        order = list(self.spelled)
        return sorted(known, key=lambda f: order.index(f.name) if f.name in order else len(order))

    def spelling(self, name: str) -> Spelling:
        return self.spelled.get(name, Spelling())

    def option(self, name: str) -> str:
        """What a person calls a field: `--memory`, or `TASK_ID`."""
        if name in self.positional:
            return self.spelling(name).metavar or name.upper()
        return "--" + (self.spelling(name).name or option_name(name))


def option_name(name: str) -> str:
    """`required_memory_bytes` → `memory`: neither the unit nor that it is a wish needs to be typed."""
    return name.removeprefix("required_").removesuffix("_bytes").removesuffix("_seconds").replace("_", "-")


def add_options(parser: argparse.ArgumentParser, form: Form) -> None:
    """An option, or a positional word, for each field of the form."""
    hints = hints_of(form.kind)
    for member in form.fields():
        spelling = form.spelling(member.name)
        options = _reading(member, hints[member.name], spelling)
        if member.name in form.positional:
            action = parser.add_argument(member.name, **options | {"nargs": "+" if form.many else None})
        else:
            letter = spelling.flag or member.metadata.get("flag", "")
            words = ([f"-{letter}"] if letter else []) + [form.option(member.name)]
            action = parser.add_argument(*words, dest=member.name, default=argparse.SUPPRESS, **options)
        action.complete = spelling.complete  # type: ignore[attr-defined]


def given(form: Form, parsed: argparse.Namespace) -> dict[str, Any]:
    """The plain values of the fields that were typed."""
    known = vars(parsed)
    return {member.name: known[member.name] for member in form.fields() if member.name in known}


def renamed(form: Form, message: str) -> str:
    """A message that begins with the name of a field, with the option in its place."""
    path, colon, rest = message.partition(":")
    name = path.partition("[")[0].partition(".")[0].partition(" ")[0]
    known = {member.name for member in form.fields()}
    return f"{form.option(name)}:{rest}" if colon and name in known else message


def _reading(member: "dataclasses.Field[Any]", hint: Any, spelling: Spelling) -> dict[str, Any]:
    """The arguments of `add_argument` by which a field is read."""
    kind, _ = strip_optional(hint)
    about = (spelling.about or member.metadata.get("about", "")).replace("%", "%%")
    if kind is bool:
        return {"action": "store_true", "help": about}
    metavar = spelling.metavar or _metavar(kind, member.name)
    choices = _choices(kind)
    if len(choices) > FEW and not spelling.metavar:
        about = f"{about.rstrip('.')}: {', '.join(choices)}."
    made: dict[str, Any] = {"help": about + _default(member), "metavar": metavar}
    if choices:
        made["choices"] = choices
    if spelling.parse:
        return {"help": about, "metavar": metavar, "type": telling(spelling.parse)}
    if get_origin(kind) is list:
        return made | {"action": "append", "type": telling(_scalar(get_args(kind)[0], member.name))}
    if get_origin(kind) is dict:
        return made | {"action": Pairs, "type": telling(_pair)}
    return made | {"type": telling(_scalar(kind, member.name))}


def _metavar(kind: Any, name: str) -> str:
    if name.endswith("_bytes"):
        return "SIZE"
    if name.endswith("_seconds"):
        return "TIME"
    if get_origin(kind) is dict:
        return "K=V"
    if kind in (int, float):
        return "N"
    if 0 < len(_choices(kind)) <= FEW:
        return "|".join(_choices(kind))
    return option_name(name).upper().replace("-", "_")


def _choices(kind: Any) -> list[str]:
    """The words that a value may be; none where it is free."""
    inner = get_args(kind)[0] if get_origin(kind) is list else kind
    if not (isinstance(inner, type) and issubclass(inner, enum.Enum)):
        return []
    return [m.name.lower() if isinstance(m.value, int) else m.value for m in inner]  # as the codec does


def _scalar(kind: Any, name: str) -> Parse:
    if kind is int and name.endswith("_bytes"):
        return parse_bytes
    if kind is int and name.endswith("_seconds"):
        return parse_seconds
    if kind is int:
        return _whole
    if kind is float:
        return float
    if kind == int | list[int]:
        return count_or_indices
    return _task_id if kind is Snowflake else str


def telling(parse: Parse) -> Parse:
    """The same reading, with the reason of a refusal told as it is."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except REFUSED as reason:
            raise argparse.ArgumentTypeError(str(reason)) from None

    return read


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a whole number") from None


def whole_id(text: str) -> str:
    """An id as the `list` command beside it shows it."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text[:40]!r} is not an id (ids are digits; the `list` command shows them)")
    return text


def _task_id(text: str) -> str:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text[:40]!r} is not an id (ids are digits; `kohakuriver task list` shows them)")
    return text


def count_or_indices(text: str) -> int | list[int]:
    """`2` is how many; `0,1` or `@0` are which, by index."""
    which = text.removeprefix("@")
    try:
        indices = [int(part) for part in which.split(",")]
    except ValueError:
        raise ValueError(f"{text[:40]!r} is neither how many (2) nor which (0,1 or @0)") from None
    return indices if which != text or len(indices) > 1 else indices[0]


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text[:40]!r} is not NAME=VALUE")
    return name, value


class Pairs(argparse.Action):
    """Gathers `K=V` words into one mapping; the last word for a name counts."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, getattr(namespace, self.dest, {}) | dict([values]))


def _default(member: "dataclasses.Field[Any]") -> str:
    value = member.default
    if value in (dataclasses.MISSING, None, "", 0) or isinstance(value, bool):
        return ""
    if member.name.endswith("_bytes"):
        return f" ({show_bytes(value)})"
    return f" ({show_seconds(value)})" if member.name.endswith("_seconds") else f" ({value})"


def at_most(member: "dataclasses.Field[Any]") -> int:
    """The greatest value that a whole-number field may have."""
    most = bounds_of(member).most
    assert most is not None
    return int(most)
