"""The socket that a container holds to its runner, by which its ports are reached where its network cannot be entered."""

import re

from kohakuriver.model import stream_api
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import NotFound
from kohakuriver.model.report import State
from kohakuriver.model.stream_api import OpenTunnel
from kohakuriver.model.tunnel import FLOW
from kohakuriver.runner.container_spec import container_name
from kohakuriver.runner.state import Runner
from kohakuriver.runner.ways import Way
from kohakuriver.system.engine import WorkloadKey
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.sockets import Socket


async def tunnel(runner: Runner, caller: Caller, asked: OpenTunnel, socket: Socket) -> None:
    key = _running(runner, asked.container)
    has_flow = FLOW in socket.offers
    await socket.open(FLOW if has_flow else "")
    await runner.ways.serve(key, Way(socket, has_flow))


def _running(runner: Runner, container: str) -> WorkloadKey:
    """The attempt that is in a container now; raises NotFound."""
    number = re.search(r"[0-9]+$", container)
    held = runner.workloads.find(int(number[0]), None) if number else None
    is_there = held is not None and held.state.state in (State.PREPARING, State.RUNNING, State.PAUSED)
    if held is None or not is_there or container_name(held.accepted.request) != container:
        raise NotFound(f"there is no container {container} on {runner.hostname}")
    return held.key


CHANNELS = [on_channel(stream_api.TUNNEL_AT_RUNNER, tunnel)]
