"""The error in an answer that refuses."""

from kohakuriver.model import codec, errors

MESSAGE_CHARACTERS = 4000


def error_of(status: int, body: bytes) -> errors.RiverError:
    """What the answer says, as the error that it was there; NodeUnreachable when it is no answer of ours."""
    try:
        told = codec.loads(body)["error"]
        message = str(told["message"])[:MESSAGE_CHARACTERS].replace("\0", "").encode("utf-8", "replace").decode()
        return errors.from_wire(str(told["code"]), message, told.get("details"))
    except (errors.BadRequest, KeyError, TypeError, AttributeError):
        return errors.NodeUnreachable(f"an answer of status {status} that is not ours")
