"""`[[ADDRESS:]LOCAL:]PORT`: which local port leads to which port of a workload."""

from typing import NamedTuple

from kohakuriver.model.errors import BadRequest

LOOPBACK = "127.0.0.1"


class Mapping(NamedTuple):
    """A local address and port (0: any free one), and the port inside."""

    address: str
    local: int
    inside: int


def parse(text: str) -> Mapping:
    """What was typed; raises BadRequest."""
    before, _, inside = text.rpartition(":")
    address, _, local = before.rpartition(":")
    address = address.strip("[]") or LOOPBACK
    return Mapping(address, _number(local or inside, text, least=0), _number(inside, text, least=1))


def _number(word: str, text: str, least: int) -> int:
    if not (word.isascii() and word.isdigit()) or not least <= int(word) <= 65535:
        raise BadRequest(f"{text[:40]!r} is not a port: it is written [[ADDRESS:]LOCAL:]PORT, as in 8080 or 9000:80")
    return int(word)
