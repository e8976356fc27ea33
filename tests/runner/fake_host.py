"""A host that only listens to runners: it keeps what they report, and answers as a test tells it to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kohakuriver.model import docker_api, host_api
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.errors import NotFound, RiverError
from kohakuriver.model.report import (
    Acknowledged,
    AttemptRef,
    Changed,
    Heartbeat,
    Register,
    Registered,
    Report,
    State,
    WorkloadState,
)
from kohakuriver.wire.listen import listening
from kohakuriver.wire.serve import Edge, Identified, Incoming, Streamed, build_app, on, on_stream
from kohakuriver.wire.sign import REQUEST_HEADER, SteadyTime, Verifier

ROUTES = (host_api.NODE_REGISTER, host_api.NODE_HEARTBEAT, host_api.NODE_REPORT, docker_api.TARBALL_FETCH)


@dataclass
class FakeHost:
    """`acknowledges` ends or not, `fences` and `doubts` these, is ill with `error`; `told` is the latest state of each attempt."""

    cluster_id: str = "riverbed"
    heartbeat_interval_seconds: float = 5.0
    acknowledges: bool = True
    fences: list[AttemptRef] = field(default_factory=list)
    doubts: list[AttemptRef] = field(default_factory=list)
    error: RiverError | None = None
    knows: bool = False
    port: int = 0
    registers: list[Register] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    told: dict[tuple[int, int], WorkloadState] = field(default_factory=dict)
    ends: list[WorkloadState] = field(default_factory=list)
    tarballs: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # after how many bytes the next answers with tarballs break off
    offsets: list[int] = field(default_factory=list)  # from where tarballs were asked for

    def take(self, report: Report) -> Acknowledged:
        if self.error is not None:
            raise self.error
        if not self.knows:
            raise NotFound("there is no such node")
        self.reports.append(report)
        for state in report.workloads:
            key = (state.task_id, state.attempt)
            before = self.told.get(key)
            if state.state is State.ENDED and (before is None or before.state is not State.ENDED):
                self.ends.append(state)
            self.told[key] = state
        ended = [AttemptRef(s.task_id, s.attempt) for s in report.workloads if s.state is State.ENDED]
        taken = ended if self.acknowledges else []
        return Acknowledged(ended=taken, fenced=list(self.fences), doubted=list(self.doubts))

    def latest(self) -> dict[tuple[int, int], WorkloadState]:
        """What the last report said."""
        return {(s.task_id, s.attempt): s for s in self.reports[-1].workloads}


async def _register(host: FakeHost, caller: Caller, asked: Register) -> Registered:
    if host.error is not None:
        raise host.error
    host.registers.append(asked)
    host.knows = True
    return Registered(
        cluster_id=host.cluster_id,
        version="0",
        heartbeat_interval_seconds=host.heartbeat_interval_seconds,
        acknowledged=host.take(asked.report),
    )


async def _heartbeat(host: FakeHost, caller: Caller, asked: Heartbeat) -> Acknowledged:
    answer = host.take(asked.report)
    host.heartbeats.append(asked)
    return answer


async def _changed(host: FakeHost, caller: Caller, asked: Changed) -> Acknowledged:
    return host.take(asked.report)


async def _fetch(host: FakeHost, caller: Caller, asked: docker_api.FetchTarball) -> Streamed:
    host.offsets.append(asked.offset)
    if asked.stem not in host.tarballs:
        raise NotFound(f"there is no tarball {asked.stem}")
    rest = host.tarballs[asked.stem][asked.offset :]
    cut = host.cuts.pop(0) if host.cuts else None

    async def chunks() -> AsyncIterator[bytes]:
        yield rest[:cut]
        if cut is not None:
            await asyncio.sleep(0.05)  # for what was sent to arrive
            raise ConnectionResetError("the host was killed")

    return Streamed(chunks(), {"Content-Length": str(len(rest))})


async def _guard(
    host: FakeHost, caller: Caller, owns: Ownership, asked: Register | Heartbeat | Changed | docker_api.FetchTarball
) -> None:
    assert owns is Ownership.NODE
    assert caller.name == asked.hostname


@asynccontextmanager
async def serving(host: FakeHost, secret: bytes) -> AsyncIterator[None]:
    """The host listens while the block runs, again on the port it had before."""
    verifier = Verifier(lambda name: secret, SteadyTime())

    def identify(incoming: Incoming) -> Identified:
        signed = verifier.verify(incoming.headers[REQUEST_HEADER], incoming.signing)
        return Identified(Caller(signed.name, Role.NODE), signed)

    answers = [
        on(host_api.NODE_REGISTER, _register),
        on(host_api.NODE_HEARTBEAT, _heartbeat),
        on(host_api.NODE_REPORT, _changed),
        on_stream(docker_api.TARBALL_FETCH, _fetch),
    ]
    app = build_app(ROUTES, answers, Edge(host, identify, _guard))
    async with listening(app, "127.0.0.1", host.port) as host.port:
        yield
