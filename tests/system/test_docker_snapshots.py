"""The VPS of a real daemon: their containers start again, and are saved whole or not at all."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from kohakuriver.model.errors import EngineFailed, NotFound
from kohakuriver.model.vps import WAIT_COMMAND
from kohakuriver.system.docker_engine import DockerEngine
from kohakuriver.system.docker_snapshots import DockerWorkspaces, instructions
from kohakuriver.system.engine import ContainerSpec, Phase, Saved
from tests.docker_daemon import IMAGE, Daemon
from tests.system.engine_rig import CLUSTER, NODE, Rig, exited

pytestmark = pytest.mark.docker
TASK = 7


class Node:
    """A daemon with an engine on it, and one VPS."""

    def __init__(self, daemon: Daemon, engine: DockerEngine, rig: Rig) -> None:
        self.daemon, self.engine, self.rig = daemon, engine, rig

    @property
    def hands(self) -> DockerWorkspaces:
        return self.engine.workspaces

    def spec(self, attempt: int = 1, image: str = IMAGE) -> ContainerSpec:
        made = self.rig.spec(*WAIT_COMMAND, task_id=TASK, attempt=attempt, image=image, name=f"kohakuriver-vps-{TASK}")
        return replace(made, labels={**made.labels, "kohakuriver.type": "vps"})

    async def run(self, attempt: int = 1, image: str = IMAGE) -> ContainerSpec:
        spec = self.spec(attempt, image)
        await self.engine.create(spec)
        await self.engine.start(spec)
        return spec

    async def stop(self, spec: ContainerSpec) -> None:
        await self.engine.signal(spec.key, 15)
        await exited(self.engine, spec.key)

    def inside(self, script: str) -> str:
        """What a script says that runs in the VPS."""
        done = self.daemon.cli("exec", f"kohakuriver-vps-{TASK}", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def images(self) -> list[str]:
        """Every image of ours but the first, by name; `<none>` where it has none."""
        listed = self.daemon.cli("images", "-a", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        return sorted(name for name in listed if name != IMAGE)


@pytest.fixture
def play(tmp_path: Path, docker_daemon: Daemon) -> Iterator[Callable[[Callable[[Node], Awaitable[None]]], None]]:
    def run(script: Callable[[Node], Awaitable[None]]) -> None:
        async def whole() -> None:
            engine = DockerEngine(CLUSTER, NODE, tmp_path / "containers", docker_daemon.socket)
            await engine.open()
            try:
                async with asyncio.timeout(300):
                    await script(Node(docker_daemon, engine, Rig(lambda *_: engine, tmp_path, IMAGE, "none")))
            finally:
                await engine.close()

        asyncio.run(whole())

    yield run
    docker_daemon.remove_containers()
    for name in docker_daemon.cli("images", "-aq", "--filter", "label=kohakuriver.snapshot.of").stdout.split():
        docker_daemon.cli("rmi", "-f", name)


Play = Callable[[Callable[[Node], Awaitable[None]]], None]


def test_a_vps_starts_again_with_its_files_and_asks_everybody_inside_to_end(play: Play) -> None:
    async def script(node: Node) -> None:
        spec = await node.run()
        node.inside("(trap 'echo bye > /root/last; exit 0' TERM; while :; do sleep 0.1; done) > /dev/null 2>&1 &")
        await node.stop(spec)
        await node.hands.start_again(spec.key)
        await node.hands.start_again(spec.key)
        assert (await node.engine.observe(spec.key)).phase is Phase.RUNNING
        assert node.inside("cat /root/last") == "bye\n"
        assert [seen.key for seen in await node.hands.containers(TASK)] == [spec.key]
        assert await node.hands.containers(TASK + 1) == []

    play(script)


def test_a_snapshot_holds_what_was_written_and_a_container_made_of_it_is_no_vps_of_ours(play: Play) -> None:
    async def script(node: Node) -> None:
        spec = await node.run()
        node.inside("echo one > /root/notes; ln -s /etc/shadow /root/link; chmod 600 /root/notes")
        before = Saved(timestamp=100, image="", message='a "b" $c', began_at=5.5)
        await node.hands.take(spec.key, before)
        assert (await node.engine.observe(spec.key)).phase is Phase.RUNNING
        (saved,) = await node.hands.snapshots(TASK)
        assert (saved.timestamp, saved.message, saved.began_at) == (100, 'a "b" $c', 5.5)
        assert saved.image == f"kohakuriver-snapshot/vps-{TASK}:100" and not saved.automatic
        assert 0 < saved.size_bytes < 10_000 < saved.total_bytes
        node.daemon.cli("run", "-d", "--name", "stranger", saved.image)
        assert [seen.key for seen in await node.engine.observe_all()] == [spec.key]
        await node.stop(spec)
        await node.run(2, saved.image)
        assert node.inside("stat -c %a /root/notes; cat /root/notes; readlink /root/link") == "600\none\n/etc/shadow\n"

    play(script)


@pytest.mark.parametrize("flat", [False, True], ids=["a layer", "flat"])
def test_what_is_made_of_a_snapshot_gets_no_secret_variable(play: Play, docker_daemon: Daemon, flat: bool) -> None:
    async def script(node: Node) -> None:
        node.hands._flat_from_layers = 0 if flat else 100
        spec = node.spec()
        spec = replace(spec, env={"KEY": "planted", "SEED": "1"}, labels={**spec.labels, "kohakuriver.secrets": "KEY"})
        await node.engine.create(spec)
        await node.engine.start(spec)
        assert node.inside("echo $KEY") == "planted\n"
        await node.hands.take(spec.key, Saved(timestamp=1, image="", message=""))
        (saved,) = await node.hands.snapshots(TASK)
        kept = docker_daemon.request("GET", f"/images/{saved.image}/json")["Config"]
        assert "planted" not in str(kept) and "SEED=1" in kept["Env"]
        await node.stop(spec)

    play(script)


def test_many_snapshots_stay_below_what_can_be_mounted_because_deep_ones_are_written_flat(
    play: Play, docker_daemon: Daemon
) -> None:
    async def script(node: Node) -> None:
        node.hands._flat_from_layers = 3
        image, depths = IMAGE, []
        for round_ in range(1, 5):
            spec = await node.run(round_, image)
            node.inside(f"echo {round_} >> /root/rounds")
            await node.stop(spec)
            await node.hands.take(spec.key, Saved(timestamp=round_, image="", message='it\'s "flat" $HOME'))
            saved = (await node.hands.snapshots(TASK))[-1]
            assert saved.message == 'it\'s "flat" $HOME'
            image = saved.image
            depths.append(len(docker_daemon.request("GET", f"/images/{image}/json")["RootFS"]["Layers"]))
        assert depths == [2, 3, 1, 2]
        await node.run(5, image)
        assert node.inside("cat /root/rounds") == "1\n2\n3\n4\n"

    play(script)


def test_whether_something_changed_is_seen_from_outside(play: Play) -> None:
    async def script(node: Node) -> None:
        spec = await node.run()
        node.inside("mkdir -p /root/a/b; echo 1 > /root/a/b/c")
        await node.stop(spec)
        after = time.time() + 0.05
        assert await node.hands.changed_since(spec.key, after - 60)
        assert not await node.hands.changed_since(spec.key, after)
        await node.hands.take(spec.key, Saved(timestamp=1, image="", began_at=after))
        assert not await node.hands.changed_since(spec.key, after), "a snapshot itself changes nothing"
        await asyncio.sleep(0.1)
        node.daemon.cli("cp", "/etc/hostname", f"kohakuriver-vps-{TASK}:/root/a/b/d")
        assert await node.hands.changed_since(spec.key, after)

    play(script)


def test_a_snapshot_that_would_fill_the_disk_is_told_before_it_is_made(play: Play) -> None:
    async def script(node: Node) -> None:
        spec = await node.run()
        assert await node.hands.lacks_room(spec.key, 1000) == ""
        assert "must stay so" in await node.hands.lacks_room(spec.key, 2**60)

    play(script)


def test_deleted_snapshots_are_gone_also_when_a_vps_was_made_of_them(play: Play) -> None:
    async def script(node: Node) -> None:
        spec = await node.run()
        await node.hands.take(spec.key, Saved(timestamp=1, image=""))
        saved = (await node.hands.snapshots(TASK))[0]
        await node.stop(spec)
        spec = await node.run(2, saved.image)
        await node.hands.take(spec.key, Saved(timestamp=2, image=""))
        await node.hands.delete_snapshot(TASK, 1)
        with pytest.raises(NotFound, match="no snapshot 1"):
            await node.hands.delete_snapshot(TASK, 1)
        assert [each.timestamp for each in await node.hands.snapshots(TASK)] == [2]
        await node.hands.take(spec.key, Saved(timestamp=3, image=""))
        await node.engine.remove(spec.key)
        for timestamp in (2, 3):
            await node.hands.delete_snapshot(TASK, timestamp)
        await node.hands.sweep(TASK)
        assert node.images() == [], "no layer stays behind"

    play(script)


def test_a_daemon_that_is_killed_while_it_saves_leaves_no_half_snapshot(play: Play) -> None:
    async def script(node: Node) -> None:
        spec = await node.run()
        node.inside("head -c 60000000 /dev/urandom > /root/big; md5sum /root/big > /root/sum")
        for round_ in range(3):
            killer = threading.Timer(0.05 + 0.25 * round_, node.daemon.kill)
            killer.start()
            with suppress(EngineFailed):
                await node.hands.take(spec.key, Saved(timestamp=round_ + 1, image=""))
            killer.join()
            node.daemon.restart()
            await _answers(node, spec)
            whole = await node.hands.snapshots(TASK)
            await node.hands.sweep(TASK)
            assert [each.timestamp for each in await node.hands.snapshots(TASK)] == [each.timestamp for each in whole]
            for each in whole:
                done = node.daemon.cli(
                    "run", "--rm", "--entrypoint", "sh", each.image, "-c", "md5sum -c /root/sum", seconds=120
                )
                assert done.returncode == 0, done.stderr
            assert not [name for name in node.images() if "unfinished" in name]
            await node.engine.resume(spec.key)

    play(script)


async def _answers(node: Node, spec: ContainerSpec) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await node.engine.observe(spec.key)
                return
            except EngineFailed:
                await asyncio.sleep(0.1)


def test_settings_of_an_image_are_spelled_so_that_the_daemon_reads_the_same_values() -> None:
    config = {"Env": ['A=1 $B "q" \\', "LINES=a\nb"], "User": "me", "WorkingDir": "/w"}
    assert instructions(config, {"k": "v"}) == [
        'ENV A="1 \\$B \\"q\\" \\\\"',
        "USER me",
        "WORKDIR /w",
        'LABEL "k"="v"',
    ]
