"""Only the host may ask a runner anything, and only signed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kohakuriver.model import files as f
from kohakuriver.model import runner_api, runner_table
from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, NotLoggedIn, RiverError
from kohakuriver.model.image import Tarball
from kohakuriver.model.route import Channel, Entry, Route
from kohakuriver.model.runner_api import (
    Attempt,
    Kill,
    Nothing,
    ReadOutput,
    RunnerHealth,
    SyncImage,
    TaskRef,
    VpsOrder,
    WhichSync,
)
from kohakuriver.model.runner_key_api import Half, TakeKey
from kohakuriver.model.runner_vps_api import TellInside
from kohakuriver.model.vps import SnapshotId, TakeSnapshot
from kohakuriver.runner.app import ANSWERS
from kohakuriver.wire.call import Peer
from kohakuriver.wire.sign import Signer, SteadyTime
from tests.runner.stage import NODE, Stage, play, request


def test_every_entry_is_for_the_host_alone() -> None:
    table: tuple[Entry, ...] = (*runner_table.ROUTES, *runner_table.CHANNELS)
    assert {answer.route.name for answer in ANSWERS} == {entry.name for entry in table}
    others = [entry for entry in table if (entry.needs, entry.owns) != (Role.NODE, Ownership.HOST)]
    assert [(entry.name, entry.needs, entry.owns) for entry in others] == [
        ("tunnel", Role.ANONY, Ownership.CONTAINER)  # of which `test_tunnels.py` tells who gets in
    ]


@pytest.mark.parametrize("channel", runner_table.CHANNELS, ids=lambda channel: str(channel.name))
def test_nobody_else_gets_a_socket(tmp_path: Path, channel: Channel[Any]) -> None:
    more: dict[str, dict[str, Any]] = {"terminal": {"user": "ada"}, "forward": {"port": 80}}
    more["ssh.port"] = {"host": "localhost", "port": 22}
    members = {"task_id": Snowflake(1), "attempt": 1, **more.get(channel.name, {})}
    members = {"container": "kohakuriver-task-1"} if channel.name == "tunnel" else members

    async def script(stage: Stage) -> None:
        async with aiohttp.ClientSession() as http:
            async with http.get(stage.runner.url + channel.path.format(**members)) as answer:
                assert answer.status == 401
            for name, secret in (("alpha", stage.secret), ("host", bytes(32)), ("", stage.secret)):
                stranger = Peer(http, stage.runner.url, Signer(name, secret, SteadyTime()))
                with pytest.raises(NotLoggedIn):
                    await stranger.open(channel, channel.takes(**members))

    play(tmp_path, script)


@pytest.mark.parametrize("route", runner_table.ROUTES, ids=lambda route: str(route.name))
def test_nobody_else_is_answered(tmp_path: Path, route: Route[Any, Any]) -> None:
    async def script(stage: Stage) -> None:
        url = stage.runner.url + route.path.format(task_id=1, timestamp=1, stem=TARBALL.stem)
        async with aiohttp.ClientSession() as http:
            async with http.request(route.method, url) as answer:
                assert answer.status == 401
            for name, secret in (("alpha", stage.secret), ("host", bytes(32)), ("", stage.secret)):
                stranger = Peer(http, stage.runner.url, Signer(name, secret, SteadyTime()))
                with pytest.raises(RiverError) as caught:
                    await (sent(stranger, route) if route.raw_body else stranger.call(route, REQUESTS[route.name]))
                assert isinstance(caught.value, NotLoggedIn), caught.value
        assert stage.engine.calls == [
            call for call in stage.engine.calls if call[0] in ("open", "describe", "observe_all")
        ]

    play(tmp_path, script)


async def sent(peer: Peer, route: Route[Any, Any]) -> Any:
    """A body that nobody lets in: not even its first byte is wanted."""

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("it was wanted")
        yield b""

    return await peer.upload(route, REQUESTS[route.name], body())


TASK = Snowflake(1)
TARBALL = Tarball(stem="lab-1700000000", environment="lab", made_at=1700000000, size_bytes=1, digest="0" * 64)
REQUESTS: dict[str, Any] = {
    "execute": request("true"),
    "kill": Kill(task_id=TASK, attempt=1),
    "key.offer": Half(public="09" + "00" * 31),
    "key.take": TakeKey(proof="0" * 64),
    "vps.create": request("true", vps=VpsOrder()),
    "vps.restart": request("true", attempt=2, vps=VpsOrder(is_new=False)),
    "vps.stop": Kill(task_id=TASK, attempt=1),
    "vps.delete": TaskRef(task_id=TASK),
    "vps.snapshots": TaskRef(task_id=TASK),
    "vps.snapshot.create": TakeSnapshot(task_id=TASK),
    "vps.snapshot.delete": SnapshotId(task_id=TASK, timestamp=1),
    "discard": Attempt(task_id=TASK, attempt=1),
    "vps.tell": TellInside(task_id=TASK, attempt=1, text="told"),
    "pause": Attempt(task_id=TASK, attempt=1),
    "resume": Attempt(task_id=TASK, attempt=1),
    "stdout": ReadOutput(task_id=TASK),
    "stderr": ReadOutput(task_id=TASK),
    "health": Nothing(),
    "images": Nothing(),
    "images.sync": SyncImage(tarball=TARBALL),
    "images.sync.show": WhichSync(stem=TARBALL.stem),
    "fs.list": f.ListFiles(task_id=TASK),
    "fs.stat": f.LookAtFile(task_id=TASK),
    "fs.read": f.ReadFile(task_id=TASK),
    "fs.download": f.DownloadFile(task_id=TASK),
    "fs.pack": f.AtPath(task_id=TASK),
    "fs.write": f.WriteFile(task_id=TASK),
    "fs.upload": f.UploadFile(task_id=TASK),
    "fs.unpack": f.AtPath(task_id=TASK),
    "fs.mkdir": f.MakeDirectory(task_id=TASK),
    "fs.rename": f.RenameFile(task_id=TASK, target="/x"),
    "fs.delete": f.DeleteFile(task_id=TASK),
}


def test_the_host_is_told_that_it_is_well(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        health: RunnerHealth = await stage.call(runner_api.HEALTH, Nothing())
        assert (health.hostname, health.cluster_id) == (NODE, stage.host.cluster_id)

    play(tmp_path, script)


def test_a_malformed_request_changes_nothing_and_names_the_field(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        with pytest.raises(BadRequest, match="attempt"):
            await stage.execute("true", attempt=0)
        with pytest.raises(BadRequest, match="grace_seconds"):
            await stage.kill(grace_seconds=-1)
        assert not stage.runner.workloads.holds_any
        assert await asyncio.wait_for(stage.call(runner_api.HEALTH, Nothing()), 5)

    play(tmp_path, script)
