"""Where files are, as a person types it: in a workload, or in an environment on the host."""

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kohakuriver.client.command import Order
from kohakuriver.client.names import id_or_name, with_id
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.fields import ENVIRONMENT
from kohakuriver.model.files_api import at_environment
from kohakuriver.model.route import Channel, Route

if TYPE_CHECKING:
    from kohakuriver.client.session import Session

R = TypeVar("R")
IN_ENVIRONMENT = "env"


class Where(NamedTuple):
    """`ID:PATH` or `env:NAME:PATH`; `whose` is the id of a workload, or the name of an environment."""

    whose: str
    path: str
    in_environment: bool = False

    def __str__(self) -> str:
        return f"{IN_ENVIRONMENT + ':' if self.in_environment else ''}{self.whose}:{self.path}"


def where_of(session: "Session", text: str) -> Where:
    """What was typed, with an id in the place of a name; without a path it is the root. Raises BadRequest, NotFound."""
    word, path, in_environment = _split(text)
    if in_environment:
        if not re.fullmatch(ENVIRONMENT, word):
            raise BadRequest(f"{text[:60]!r} is not env:NAME:PATH")
        return Where(word, path or "/", True)
    try:
        values = with_id(session, {"task_id": id_or_name(word)})
    except ValueError as wrong:
        raise BadRequest(f"{text[:60]!r} is not ID:PATH: {wrong}") from None
    return Where(values["task_id"], path or "/")


def has_path(text: str) -> bool:
    """Whether a path was typed, too."""
    return bool(_split(text)[1])


def asked(order: Order, where: Where, route: Route[Any, R], **members: Any) -> tuple[Route[Any, R], Any]:
    """What is to be asked about a path, and how; raises BadRequest for an attempt of what has none."""
    takes = _members(order, where, members)
    route = at_environment(route) if where.in_environment else route
    return route, route.takes(**takes)


def opened(order: Order, where: Where, channel: Channel[Any], **members: Any) -> tuple[Channel[Any], Any]:
    """The same for a socket."""
    takes = _members(order, where, members)
    channel = at_environment(channel) if where.in_environment else channel
    return channel, channel.takes(**takes)


def _members(order: Order, where: Where, members: dict[str, Any]) -> dict[str, Any]:
    attempt = getattr(order.parsed, "attempt", None)
    if where.in_environment:
        if attempt is not None:
            raise BadRequest("attempt: an environment has none")
        return {"name": where.whose, "path": where.path, **members}
    about = {"task_id": Snowflake(int(where.whose)), "path": where.path, **members}
    return about if attempt is None else about | {"attempt": attempt}


def _split(text: str) -> tuple[str, str, bool]:
    """Whose, the path, and whether it is an environment's; `env:/PATH` is a path of a VPS that is called so."""
    word, _, rest = text.partition(":")
    if word == IN_ENVIRONMENT and rest and not rest.startswith("/"):
        name, _, path = rest.partition(":")
        return name, path, True
    return word, rest, False
