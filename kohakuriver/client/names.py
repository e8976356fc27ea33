"""Names of VPS in the place of ids: what may be typed, and which id it means."""

import re
from typing import TYPE_CHECKING, Any

from kohakuriver.client.flags import Spelling
from kohakuriver.model.access import USER_NAME
from kohakuriver.model.fields import VPS_NAME

if TYPE_CHECKING:
    from kohakuriver.client.session import Session


def id_or_name(text: str) -> str:
    """An id, or a name that a VPS can have, perhaps behind its owner's; raises ValueError."""
    if not (text.isascii() and text.isdecimal()) and not re.fullmatch(rf"({USER_NAME}/)?{VPS_NAME}", text):
        raise ValueError(f"{text[:40]!r} is neither an id nor a name (`kohakuriver vps list` shows both)")
    return text


# How the field `task_id` is typed: of commands about VPS, and of those about tasks and VPS alike.
VPS = {"task_id": Spelling(about="The VPS, by its id or name.", metavar="VPS", parse=id_or_name, complete="vps")}
WORKLOAD = {
    "task_id": Spelling(
        about="The task, or the VPS by its id or name.", metavar="ID", parse=id_or_name, complete="workload"
    )
}


def with_id(session: "Session", values: dict[str, Any]) -> dict[str, Any]:
    """The values of a request with an id in the place of a name; raises NotFound, Conflict when it names several."""
    word = values.get("task_id")
    if not isinstance(word, str) or word.isdecimal():
        return values
    from kohakuriver.model.vps_api import VPS_FIND, FindVps

    return values | {"task_id": str(session.call(VPS_FIND, FindVps(name=word)).task_id)}
