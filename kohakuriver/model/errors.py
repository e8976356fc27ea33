"""Every error the product raises on purpose, and what each becomes outside.

RiverError
  Refused              the caller must change something
    BadRequest         400  exit 2
    TooLarge           413  exit 2
    NotLoggedIn        401  exit 4
      StaleSignature   401  exit 4
    NotAllowed         403  exit 4
    NotFound           404  exit 3
    MethodNotAllowed   405  exit 2
    Conflict           409  exit 5
    WrongContentType   415  exit 2
    OutOfRange         416  exit 2
    TooMany            429  exit 6
  Unavailable          someone else must change something
    HostUnreachable    503  exit 6
    NodeUnreachable    502  exit 6
    StoreUnavailable   507  exit 6
    EngineFailed       502  exit 1

Anything else that escapes a handler is a bug: 500, logged with its traceback.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class RiverError(Exception):
    """An error with a meaning outside the process; `details` is JSON-ready and may be empty."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = dict(details or {})


class Refused(RiverError):
    """The request cannot be done as asked; asking again unchanged will not help."""


class BadRequest(Refused):
    """The request is malformed; the message names the field."""

    status, code, exit_code = 400, "bad_request", 2


class TooLarge(Refused):
    """The request is larger than the program reads."""

    status, code, exit_code = 413, "too_large", 2


class NotLoggedIn(Refused):
    """Nobody is known behind the request."""

    status, code, exit_code = 401, "not_logged_in", 4


class StaleSignature(NotLoggedIn):
    """The signature was right but for another life or time of the program; `details` say which would do."""

    code = "stale_signature"


class NotAllowed(Refused):
    """The caller is known and may not do this."""

    status, code, exit_code = 403, "not_allowed", 4


class NotFound(Refused):
    """It does not exist, or the caller may not know that it does."""

    status, code, exit_code = 404, "not_found", 3


class MethodNotAllowed(Refused):
    """The path exists, the method does not."""

    status, code, exit_code = 405, "method_not_allowed", 2


class Conflict(Refused):
    """The thing is in a state that does not permit this now."""

    status, code, exit_code = 409, "conflict", 5


class WrongContentType(Refused):
    """The body is not declared as JSON; a browser cannot be made to send that declaration across sites."""

    status, code, exit_code = 415, "wrong_content_type", 2


class OutOfRange(Refused):
    """A range of bytes begins behind the end; `details["size_bytes"]` is how many there are."""

    status, code, exit_code = 416, "out_of_range", 2


class TooMany(Refused):
    """A limit on how often or how many was reached."""

    status, code, exit_code = 429, "too_many", 6


class Unavailable(RiverError):
    """The request is fine; something it needs is not."""

    status, code, exit_code = 503, "unavailable", 6


class HostUnreachable(Unavailable):
    """The host did not answer."""

    status, code, exit_code = 503, "host_unreachable", 6


class NodeUnreachable(Unavailable):
    """A node did not answer."""

    status, code, exit_code = 502, "node_unreachable", 6


class StoreUnavailable(Unavailable):
    """The database cannot be written just now (a full disk, mostly); nothing was changed."""

    status, code, exit_code = 507, "store_unavailable", 6


class EngineFailed(RiverError):
    """The engine could not do one step; `retry_elsewhere` says whether another node might."""

    status, code, exit_code = 502, "engine_failed", 1

    def __init__(self, message: str, *, retry_elsewhere: bool = False) -> None:
        super().__init__(message, {"retry_elsewhere": retry_elsewhere})

    @property
    def retry_elsewhere(self) -> bool:
        return bool(self.details.get("retry_elsewhere"))


def from_wire(code: str, message: str, details: Mapping[str, Any] | None = None) -> RiverError:
    """Rebuild the error that a peer answered with; an unknown code becomes a plain RiverError."""
    kind = _BY_CODE.get(code, RiverError)
    error = kind.__new__(kind)
    RiverError.__init__(error, message, details)
    return error


def _leaves(kind: type[RiverError]) -> dict[str, type[RiverError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found |= _leaves(child)
    return found


_BY_CODE = _leaves(RiverError)
_BY_CODE["internal"] = RiverError
