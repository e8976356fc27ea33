"""What an answer of the Docker daemon means for us: pure."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.execution import NO_SUCH_PROGRAM, NOT_RUNNABLE

# The machinery of which a reader of the reason learns nothing.
_NOISE = re.compile(
    r"(?:failed to create (?:shim )?task|failed to create shim|OCI runtime (?:create|start|exec) failed|runc create failed|exec failed"
    r"|unable to start container process|container_linux\.go:\d+: starting container process caused"
    r"|error during container init): "
)
# Refusals of a request that is fine, from a node that lacks something.
_LACKS = (
    "no space left on device",
    "no such image",
    "could not select device driver",
    "are not available",
    "range of cpus is from",
    "source path does not exist",
)
# Failures of the server's (5xx) that lie in what was asked.
_ASKED_WRONG = (
    "executable file not found",
    "permission denied",
    "is not a directory",
    "not a directory",
    "no such file or directory",
    "exec format error",
    "argument list too long",
    "invalid argument",
)
_OF_THE_NODE = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
# What a registry says of a name when it is certain.
_NOT_IN_REGISTRY = (
    "not found",
    "manifest unknown",
    "repository does not exist",
    "pull access denied",
    "invalid reference format",
    "no basic auth credentials",
    "unauthorized",
)


_PROGRAM = re.compile(r'exec: "(?P<program>.*)": (?P<why>.*)')


class ApiRefused(Exception):
    """The daemon answered a call with an error: the HTTP status and Docker's words."""

    def __init__(self, status: int, explanation: str) -> None:
        super().__init__(explanation)
        self.status = status
        self.explanation = explanation

    @property
    def is_no_such_container(self) -> bool:
        """Whether it is the container itself that is not there."""
        return self.status == HTTPStatus.NOT_FOUND and "no such container" in self.explanation.lower()


def unreachable(socket: str, why: BaseException) -> EngineFailed:
    """The daemon itself does not answer."""
    return EngineFailed(f"the Docker daemon at {socket} does not answer: {one_line(str(why))}", retry_elsewhere=True)


def not_started(said: str) -> tuple[str, int]:
    """What Docker writes for a process inside that never began, as shells say it, and their exit code for that."""
    found = _PROGRAM.fullmatch(one_line(said))
    if found is None:
        return f"{one_line(said)}\n", NOT_RUNNABLE
    program, why = found["program"], found["why"]
    if "executable file not found" in why or "no such file or directory" in why:
        return f"{program}: not found\n", NO_SUCH_PROGRAM
    return f"{program}: {why}\n", NOT_RUNNABLE


def failed(doing: str, error: ApiRefused) -> EngineFailed:
    """A refusal as one line for a person, which knows whether another node might do better."""
    text = one_line(error.explanation)
    lower = text.lower()
    if any(words in lower for words in _LACKS):
        elsewhere = True
    elif any(words in lower for words in _ASKED_WRONG):
        elsewhere = False
    else:
        elsewhere = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.status in _OF_THE_NODE
    return EngineFailed(f"{doing}: {text}", retry_elsewhere=elsewhere)


@contextmanager
def told_as(doing: str) -> Iterator[None]:
    """Make EngineFailed of a refusal in the block."""
    try:
        yield
    except ApiRefused as error:
        raise failed(doing, error) from None


def not_pulled(image: str, explanation: str) -> EngineFailed:
    """The image is not on the node and cannot be had; another node may have it unless the registry is certain."""
    text = one_line(explanation)
    certain = any(words in text.lower() for words in _NOT_IN_REGISTRY)
    return EngineFailed(f"image {image} is not here and cannot be pulled: {text}", retry_elsewhere=not certain)


def one_line(explanation: str) -> str:
    """An explanation of Docker's without its machinery, on one line."""
    text = _NOISE.sub("", " ".join(explanation.split()))
    return text.removesuffix(": unknown").strip() or "no reason given"
