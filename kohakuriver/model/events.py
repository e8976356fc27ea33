"""The feed of what changes in the cluster: what one asks of it, and what it says."""

from dataclasses import dataclass, field
from enum import StrEnum

from kohakuriver.model import fields as f
from kohakuriver.model.access import Role
from kohakuriver.model.codec import JsonObject
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.route import Channel, channels_of


class Kind(StrEnum):
    """What kind of thing changed."""

    TASK = "task"
    VPS = "vps"
    NODE = "node"
    ENVIRONMENT = "environment"


OBJECT = Bounds(length=80, pattern=rf"(({'|'.join(Kind)})(:[A-Za-z0-9_.-]+)?)?")


class Type(StrEnum):
    """What a message of the feed is."""

    CHANGE = "change"
    SEEN = "seen"  # up to here there was nothing (more) for this reader
    RELOAD = "reload"  # what came before is not kept: look at everything anew, then go on from here


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowEvents:
    """From where on, and about what."""

    since: int | None = declare(
        "The last number that is known; none: from now on.", default=None, bounds=Bounds(least=0, most=f.MAX_INTEGER)
    )
    object: str = declare("Only about this: KIND, or KIND:NAME.", default="", bounds=OBJECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One message; `object` is KIND:NAME, `entry` what is remembered of the change.

    The entry of a task or a VPS is one of its history; of an environment the job on it, or a `Step` as of a node.
    """

    type: Type
    seq: int
    object: str = ""
    owner: str = ""
    entry: JsonObject = field(default_factory=lambda: JsonObject({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A node or an environment came to be in another state; `by` is the person, if one did it."""

    at: str
    state: str
    by: str | None = None
    detail: str = ""


EVENTS = Channel(
    "events",
    "/ws/events",
    FollowEvents,
    Role.VIEWER,
    "What changes of all that the caller may know of, as JSON, from any number on that is still kept.",
)
CHANNELS = channels_of(globals())
