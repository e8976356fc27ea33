"""Reaches into workloads through the runners that have them."""

from dataclasses import dataclass
from typing import TypeVar

from kohakuriver.host.services.node_registry import NodeRegistry
from kohakuriver.host.services.ssh.people import Workload
from kohakuriver.host.store import tasks
from kohakuriver.model import codec
from kohakuriver.model import ssh_api as api
from kohakuriver.model.errors import Conflict, NodeUnreachable
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.route import Channel
from kohakuriver.model.ssh_api import StartProcess
from kohakuriver.system.sqlite import Database
from kohakuriver.wire.peers import RunnerPeers
from kohakuriver.wire.sockets import Socket

Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a workload is now."""

    task_id: int
    attempt: int
    node: str


@dataclass(frozen=True, slots=True)
class RunnerInside:
    """The ways in; each is a channel to the runner."""

    db: Database
    registry: NodeRegistry
    peers: RunnerPeers

    async def port(self, workload: Workload, host: str, port: int) -> Socket:
        """See `Inside`."""
        at = await self._find(workload)
        asked = api.PortInside(task_id=workload.task_id, attempt=at.attempt, host=host, port=port)
        return await self._open(at, api.PORT_AT_RUNNER, asked)

    async def process(self, workload: Workload, wanted: StartProcess) -> Socket:
        """See `Inside`."""
        at = await self._find(workload)
        asked = api.ProcessInside(task_id=workload.task_id, attempt=at.attempt)
        opened = await self._open(at, api.PROCESS_AT_RUNNER, asked)
        await opened.send(codec.dumps(codec.encode(wanted)))
        return opened

    async def files(self, workload: Workload, user: str) -> Socket:
        """See `Inside`."""
        at = await self._find(workload)
        asked = api.FilesInside(task_id=workload.task_id, attempt=at.attempt, user=user)
        return await self._open(at, api.FILES_AT_RUNNER, asked)

    async def _find(self, workload: Workload) -> _Place:
        """Raises Conflict when it does not run."""
        task = await self.db.read(lambda tx: tasks.get(tx, workload.task_id))
        if task.status not in (Status.RUNNING, Status.PAUSED) or task.assigned_node is None:
            raise Conflict(f"{workload.task_id} does not run (it is {task.status.value})")
        return _Place(task.task_id, task.attempt, task.assigned_node)

    async def _open(self, at: _Place, channel: Channel[Q], asked: Q) -> Socket:
        node = self.registry.nodes.get(at.node)
        if node is None or not node.online:
            raise NodeUnreachable(f"{at.task_id} is on node {at.node}, which is away")
        return await self.peers.at(at.node, node.row.url, node.row.tls_fingerprint).open(channel, asked)
