"""Variables of `-e K=@…`, whose values nobody but the workload may see: they stand in no argument and in no answer."""

import os
from collections.abc import Callable, Mapping

from kohakuriver.client.flags import Spelling
from kohakuriver.model.errors import BadRequest

MARK = "@"
OWN = "secret"  # `-e K=@secret`
MOST_BYTES = 1_000_000
UNTYPED = frozenset({"secret_env", "registry_login"})  # a secret must not stand in the list of processes
ENV = Spelling(
    "env",
    about="A variable of its environment; K=@FILE is a secret from FILE (- is standard input), K=@secret one "
    "from your own variable K.",
)
Read = Callable[[str, str], str]


def sort_out(variables: Mapping[str, str], read: Read) -> dict[str, dict[str, str]]:
    """Fields of a submit: what was typed as it is, and the secrets that `read` finds for a name and what follows `@`.

    `@@` stands for an `@` that a value begins with.
    """
    made: dict[str, dict[str, str]] = {"env_vars": {}, "secret_env": {}}
    for name, value in variables.items():
        if not value.startswith(MARK):
            made["env_vars"][name] = value
        elif value.startswith(MARK * 2):
            made["env_vars"][name] = value.removeprefix(MARK)
        else:
            made["secret_env"][name] = read(name, value.removeprefix(MARK))
    return {field: found for field, found in made.items() if found}


def value_of(name: str, source: str) -> str:
    """The secret for `K=@source`: a file's content without its last line end; `-` is standard input.

    `secret` is the variable of the same name here; if there is none, and no such file either, a person is asked.
    Raises BadRequest.
    """
    if source == OWN:
        if name in os.environ:
            return os.environ[name]
        if not os.path.exists(OWN):
            from kohakuriver.client.asking import typed  # few need it

            return typed(name, f"-e {name}=@FILE, or set {name} here")
    return _content_of(name, source)


def _content_of(name: str, path: str) -> str:
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as refused:
        at = f"to begin a value with {MARK}, type {MARK * 2}"
        raise BadRequest(f"--env: {name}: no secret in {path!r}: {refused.strerror} ({at})") from None
    if len(content) > MOST_BYTES:
        raise BadRequest(f"--env: {name}: {path} is larger than {MOST_BYTES} bytes")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadRequest(f"--env: {name}: {path} is not text") from None
