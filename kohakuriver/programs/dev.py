"""`kohakuriver dev`: a cluster on this machine to play with, which Ctrl-C takes away with all that it ran."""

import argparse
import asyncio
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kohakuriver.client.complaints import Parser
from kohakuriver.model.settings import ClientSettings
from kohakuriver.programs.own_command import typed_command
from kohakuriver.programs.serve import start_log
from kohakuriver.programs.signals import until_told_to_stop

if TYPE_CHECKING:
    from kohakuriver.programs.dev_cluster import DevCluster

MAX_NODES = 32


def run(arguments: list[str]) -> int:
    """Serve until Ctrl-C."""
    asked = _parser().parse_args(arguments[1:])
    start_log(asked.log_level)
    return asyncio.run(until_told_to_stop(lambda: serve(asked)))


async def serve(asked: argparse.Namespace) -> int:
    """Bring a cluster up, say how to reach it, and keep it until cancelled."""
    from kohakuriver.programs.dev_cluster import DevOptions, running_cluster  # only now: it is both programs

    began = time.monotonic()
    port = usual_port_or_any() if asked.port is None else asked.port
    options = DevOptions(nodes=asked.nodes, port=port, directory=asked.dir, engine=asked.engine)
    async with running_cluster(options, say) as cluster:
        for line in welcome(cluster, time.monotonic() - began):
            say(line)
        try:
            await asyncio.Event().wait()
        finally:
            say("\nstopping: what the nodes run is killed and removed")
    return 0


def welcome(cluster: "DevCluster", seconds: float) -> list[str]:
    """What a person must know: the nodes, the engine, the lines to paste into another shell."""
    variables = " ".join(f"{name}={value}" for name, value in cluster.environment.items())
    return [
        f"{len(cluster.nodes)} nodes ready after {seconds:.1f} s, engine {cluster.engine}, host {cluster.url}",
        "Paste into another shell:",
        "",
        f"  export {variables}",
        f"  {typed_command()} task submit --wait -- echo hello",
        "",
        "Ctrl-C takes everything away.",
    ]


def usual_port_or_any() -> int:
    """The port that clients try by themselves, or 0 (any) when somebody has it."""
    usual = ClientSettings()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((usual.host, usual.port))
        except OSError:
            return 0
    return usual.port


def say(line: str) -> None:
    """To the terminal, at once."""
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("kohakuriver dev", description=__doc__, allow_abbrev=False)
    parser.add_argument("--nodes", type=_number_of_nodes, default=2, metavar="N", help="how many (2)")
    parser.add_argument("--port", type=_port, metavar="P", help="port of the host (8000, or any when that is taken)")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="keep the state there (else it is thrown away)")
    parser.add_argument("--engine", choices=["docker", "process"], help="what runs tasks (Docker if it can be had)")
    parser.add_argument("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], default="ERROR", help="(ERROR)")
    return parser


def _number_of_nodes(text: str) -> int:
    return _between(text, 1, MAX_NODES)


def _port(text: str) -> int:
    return _between(text, 0, 65535)


def _between(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number between {least} and {most}")
    return int(text)
