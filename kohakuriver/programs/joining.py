"""`kohakuriver host join-token` and `kohakuriver runner join`: two commands by which a machine comes into the cluster."""

import argparse
import asyncio
import os
import re
import sys

from kohakuriver.client.complaints import Parser
from kohakuriver.model import join_api
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.settings import HostSettings, RunnerSettings
from kohakuriver.model.units import parse_seconds
from kohakuriver.programs.as_service import as_the_service
from kohakuriver.programs.own_command import own_command, own_environment
from kohakuriver.programs.setting_flags import add_flags, load_from
from kohakuriver.wire import joining

FROM_INPUT = "-"
PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/\s]+)(?::(?P<port>\d{1,5}))?|(?P<bare>[0-9A-Fa-f:.]+)", re.ASCII)
IN_THE_CLEAR = (
    "calls between this node and the host are signed both ways but not encrypted: nobody can change or forge them, "
    "but whoever listens on the way can read them (for TLS: kohakuriver host tls init)"
)
ONLY_HERE = "this host listens on {address} only, so that no other machine can join: set HOST_BIND_IP"


def make_token(arguments: list[str]) -> int:
    """Have the running host make a join token; prints it alone on standard output."""
    parser = Parser(
        "kohakuriver host join-token", "kohakuriver host join-token [OPTIONS]", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--uses", type=_whole, default=1, metavar="N", help="how many machines may join with it (1)")
    parser.add_argument("--ttl", type=_seconds, default=parse_seconds("24h"), metavar="TIME", help="good for (24h)")
    parser.add_argument("--node", metavar="NAME", help="only for this node, even while one of that name is alive")
    add_flags(parser, "host")
    asked = parser.parse_args(arguments)
    as_the_service("host", asked)
    settings = load_from("host", asked).settings
    assert isinstance(settings, HostSettings)
    request = join_api.CreateJoinToken(uses=asked.uses, ttl_seconds=asked.ttl, node=asked.node)
    made = asyncio.run(_ask_for_token(settings, request))
    if settings.host_bind_ip.startswith("127."):
        _tell(ONLY_HERE.format(address=settings.host_bind_ip))
    if sys.stderr.isatty():
        where = settings.host_reachable_address or os.uname().nodename
        port = "" if settings.host_port == HostSettings().host_port else f":{settings.host_port}"
        _tell(f"good until {made.made.expires_at}; on the node: kohakuriver runner join {where}{port} TOKEN")
    print(made.token)
    return 0


async def _ask_for_token(settings: HostSettings, request: join_api.CreateJoinToken) -> join_api.CreatedJoinToken:
    from kohakuriver.host.console import ask_running_host

    return await ask_running_host(settings, join_api.JOIN_TOKEN_CREATE, request)


def join(arguments: list[str]) -> int:
    """Join this machine to a host, and keep the key."""
    parser = Parser(
        "kohakuriver runner join",
        "kohakuriver runner join [OPTIONS] HOST[:PORT] [TOKEN]",
        description=join.__doc__,
        allow_abbrev=False,
    )
    parser.add_argument("place", metavar="HOST[:PORT]", help="the host's name or address")
    parser.add_argument(
        "token", metavar="TOKEN", nargs="?", help="from `kohakuriver host join-token`; - or none: asked for"
    )
    parser.add_argument("--token-fd", type=int, metavar="N", help=argparse.SUPPRESS)
    add_flags(parser, "runner")
    asked = parser.parse_args(arguments)
    if asked.token not in (None, FROM_INPUT):
        _hide_token(arguments, asked.token)
    token = joining.parse_token(_token_text(asked))
    from kohakuriver.runner import joining as machine
    from kohakuriver.runner import membership

    place = machine.Place(*_place(asked.place))
    start = as_the_service("runner", asked)
    settings = load_from("runner", asked).settings
    assert isinstance(settings, RunnerSettings)
    agreed = asyncio.run(machine.join(settings, place, token))
    path = membership.keep(settings, agreed)
    if settings.host_address and settings.host_address != place.host:
        _tell(f"HOST_ADDRESS is set to {settings.host_address}, which wins over {place.host}")
    if not agreed.ca_pem and not place.host.startswith("127."):
        _tell(IN_THE_CLEAR)
    print(f"{agreed.hostname} has joined cluster {agreed.cluster_id}; its key is in {path}")
    print(f"start the runner, or restart it if it runs: {start}")
    return 0


def _hide_token(arguments: list[str], token: str) -> None:
    """Start anew with the token in a pipe, so that it does not stand in the list of processes."""
    reading, writing = os.pipe()
    os.write(writing, token.encode())
    os.close(writing)
    os.set_inheritable(reading, True)
    words = [word for word in arguments if word != token]
    command = [*own_command(), "runner", "join", *words, "--token-fd", str(reading)]
    sys.stdout.flush()
    os.execve(command[0], command, own_environment())


def _token_text(asked: argparse.Namespace) -> str:
    if asked.token_fd is not None:
        with open(asked.token_fd) as pipe:
            return pipe.read(10_000)
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass("Join token: ")
    return sys.stdin.readline(10_000)


def _place(text: str) -> tuple[str, int]:
    found = PLACE.fullmatch(text)
    if found is None or (found["port"] and not 0 < int(found["port"]) < 65536):
        raise BadRequest(f"HOST: {text[:60]!r} is not a name or an address, with or without a port")
    usual: int = HostSettings().host_port
    return (found["bare"] or found["host"].strip("[]")), int(found["port"] or usual)


def _whole(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number between 1 and 10000")
    return int(text)


def _seconds(text: str) -> int:
    try:
        return max(1, parse_seconds(text))
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


def _tell(line: str) -> None:
    print(f"kohakuriver: {line}", file=sys.stderr)
