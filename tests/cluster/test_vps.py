"""Workspaces on two real runners with real containers: they keep what they had, whoever is killed in between."""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.cluster import Json, Refused
from tests.cluster.conftest import Client, on_docker
from tests.cluster.rig import Rig
from tests.docker_daemon import Daemon

V = "/api/vps"
SECONDS = 45.0


class Workspace:
    """One VPS of a cluster, and the daemon that has its container."""

    def __init__(self, rig: Rig, daemon: Daemon, **wish: object) -> None:
        self.rig, self.daemon = rig, daemon
        self.id = str(rig.ask("POST", V, {"required_cores": 0, **wish})["vps"]["task_id"])

    @property
    def name(self) -> str:
        return f"kohakuriver-vps-{self.id}"

    def look(self) -> Json:
        return dict(self.rig.ask("GET", f"{V}/{self.id}"))

    def order(self, what: str, **members: object) -> Json:
        return dict(self.rig.ask("POST", f"{V}/{self.id}/{what}", dict(members)))

    def becomes(self, *statuses: str, after: int = 0) -> Json:
        """The VPS as soon as an attempt after that one is in one of these statuses."""
        found: Json = {}

        def is_there() -> bool:
            found.update(self.look())
            return found["status"] in statuses and found["attempt"] > after

        try:
            self.rig.until(is_there, SECONDS)
        except TimeoutError as late:
            raise TimeoutError(f"{found}\n{late}") from None
        return found

    def inside(self, script: str) -> str:
        done = self.daemon.cli("exec", self.name, "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self) -> list[str]:
        """The states of all containers that there are of it."""
        return [each["State"] for each in self.daemon.containers(f"kohakuriver.task={self.id}")]

    def snapshots(self) -> list[Json]:
        return list(self.rig.ask("GET", f"{V}/{self.id}/snapshots"))

    def images(self) -> list[str]:
        """Every image that has to do with it, under whatever name."""
        wanted = f"label=kohakuriver.snapshot.of={self.id}"
        return self.daemon.cli("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", wanted).stdout.split()

    def save(self, message: str) -> Json:
        """A snapshot by hand, once it is whole."""
        stamp, found = self.order("snapshots", message=message)["timestamp"], {}

        def is_whole() -> bool:
            found.update({each["timestamp"]: each for each in self.snapshots()})
            return bool(found[stamp]["state"] != "taking")

        self.rig.until(is_whole, SECONDS)
        assert found[stamp]["state"] == "ready", found[stamp]
        return dict(found[stamp])

    def delete(self) -> None:
        self.rig.ask("DELETE", f"{V}/{self.id}")
        self.becomes("killed")


@pytest.fixture
def make(cluster: Rig, docker_daemon: Daemon) -> Iterator[Callable[..., Workspace]]:
    """Makes workspaces, and takes them away in the end; nothing of any may be left."""
    made: list[Workspace] = []

    def one(**wish: object) -> Workspace:
        made.append(Workspace(cluster, docker_daemon, **wish))
        return made[-1]

    yield one
    cluster.tidy()
    for workspace in made:
        with suppress(Refused):  # it is gone already
            workspace.delete()
        cluster.until(lambda workspace=workspace: not workspace.containers() and not workspace.images(), SECONDS)  # type: ignore[misc]


Make = Callable[..., Workspace]


@on_docker
def test_a_workspace_goes_on_as_it_was_and_back_to_what_it_was(make: Make) -> None:
    box = make(name="box", target="beta")
    box.becomes("running")
    box.inside("echo one > /root/notes")
    saved = box.save("first")
    assert (saved["message"], saved["automatic"]) == ("first", False)
    box.inside("echo two > /root/notes")
    box.order("stop")
    stopped = box.becomes("stopped")
    assert (stopped["home"], stopped["error_message"]) == ("beta", None)
    assert box.containers() == ["exited"] and [each["automatic"] for each in box.snapshots()] == [False, True]
    box.order("restart")
    box.becomes("running", after=1)
    assert box.inside("cat /root/notes") == "two\n" and box.containers() == ["running"]
    assert len(box.snapshots()) == 2, "what was saved when it stopped is not saved again"
    box.order("restart", snapshot=saved["timestamp"])
    box.becomes("running", after=2)
    assert box.inside("cat /root/notes") == "one\n"
    box.order("pause")
    box.becomes("paused")
    box.order("stop")
    box.becomes("stopped")
    box.delete()
    assert box.containers() == [] == box.images()


@on_docker
def test_a_person_names_it_and_waits_for_it(cluster: Rig, client: Client, docker_daemon: Daemon) -> None:
    def river(*words: str) -> str:
        said = client("vps", *words)
        assert said.returncode == 0, said.stderr
        return said.stdout.decode()

    try:
        number = river("create", "--name", "lab", "-c", "0", "-t", "alpha", "--wait").strip()
        stamp = river("snapshot", "create", "lab", "-m", "mine").strip()
        assert (
            "mine" in river("snapshot", "list", "lab") and "lab" in river("list") and "alpha" in river("status", "lab")
        )
        assert river("restart", "lab", "--snapshot", stamp, "--wait") == f"{number}  running\n"
        assert river("stop", "lab", "--wait") == f"{number}  stopped\n"
        river("snapshot", "delete", "lab", stamp)
        assert stamp not in river("snapshot", "list", "lab")
    finally:
        assert river("delete", "lab", "--wait").endswith("killed\n")
    assert docker_daemon.containers(f"kohakuriver.task={number}") == []


@on_docker
def test_what_runs_comes_back_after_its_container_died_and_what_is_stopped_does_not(
    make: Make, cluster: Rig, docker_daemon: Daemon
) -> None:
    runs, stays = make(target="alpha"), make(target="alpha")
    for box in (runs, stays):
        box.becomes("running")
        box.inside("echo kept > /root/notes")
    stays.order("stop")
    stays.becomes("stopped")
    cluster.runners["alpha"].kill()
    docker_daemon.cli("kill", runs.name)  # as when the machine is switched off: nobody is there to see it
    assert runs.containers() == ["exited"]
    cluster.runners["alpha"].start()
    cluster.until(lambda: runs.containers() == ["running"], SECONDS)
    assert runs.inside("cat /root/notes") == "kept\n"
    runs.becomes("running")
    time.sleep(1)
    assert stays.containers() == ["exited"] and stays.look()["status"] == "stopped"


@on_docker
def test_the_files_of_what_could_not_be_restarted_are_still_reached(make: Make, cluster: Rig, client: Client) -> None:
    source = cluster.marks.directory / "goes-away"
    source.mkdir()
    box = make(target="alpha", additional_mounts=[f"{source}:/mnt"])
    box.becomes("running")
    box.inside("echo kept > /root/notes")
    box.order("stop")
    box.becomes("stopped")
    source.rmdir()
    box.order("restart")
    assert "goes-away" in box.becomes("stopped", after=1)["error_message"]
    assert client("fs", "cat", f"{box.id}:/root/notes").stdout == b"kept\n"
    source.mkdir()
    box.order("restart")
    box.becomes("running", after=2)
    assert box.inside("cat /root/notes") == "kept\n"


@on_docker
def test_a_database_that_is_restored_from_an_old_copy_costs_no_workspace_its_files(
    make: Make, cluster: Rig, client: Client, tmp_path: Path
) -> None:
    box, database, copy = make(name="box", target="beta"), cluster.folder / "host/host.db", tmp_path / "copy.db"
    box.becomes("running")
    box.order("stop")
    box.becomes("stopped")
    cluster.host.stop()
    shutil.copy(database, copy)
    cluster.host.start()
    box.order("restart")
    box.becomes("running", after=1)
    new = make(name="new", target="beta")
    for each in (box, new):
        each.becomes("running")
        each.inside("echo kept > /root/notes")
    cluster.host.stop()
    shutil.copy(copy, database)
    cluster.host.start()
    box.becomes("running", after=1)

    def orphans() -> list[list[str]]:
        found = json.loads(client("node", "orphan", "list", "beta", "--json").stdout)
        return [[each["task_id"], each["name"], each["owner"]] for each in found]

    cluster.until(lambda: orphans() == [[new.id, "new", "local"]], SECONDS)
    for each in (box, new):
        assert each.containers() == ["running"] and each.inside("cat /root/notes") == "kept\n"
    assert client("node", "orphan", "remove", "beta", new.id).returncode == 0
    cluster.until(lambda: not new.containers() and not orphans(), SECONDS)


@on_docker
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_whoever_is_killed_while_it_stops_is_saved_and_starts_again_it_is_whole(
    make: Make, cluster: Rig, docker_daemon: Daemon, seed: int
) -> None:
    dice, box = random.Random(seed), make(target="alpha")
    box.becomes("running")
    box.inside("head -c 20000000 /dev/urandom > /root/big; md5sum /root/big > /root/sum")
    for round_ in range(1, 3):
        attempt = int(box.look()["attempt"])
        box.order("stop")
        _strike(cluster, docker_daemon, dice)
        box.becomes("stopped")
        assert box.containers() == ["exited"], "it is one, and does not come back"
        for each in box.snapshots():
            name = f"kohakuriver-snapshot/vps-{box.id}:{each['timestamp']}"
            command = ["run", "--rm", "--network", "none", "--entrypoint", "sh", name, "-c", "md5sum -c /root/sum"]
            done = docker_daemon.cli(*command)
            assert done.returncode == 0, f"{name} is not whole: {done.stderr}"
        assert not [name for name in box.images() if "unfinished" in name]
        box.order("restart")
        _strike(cluster, docker_daemon, dice)
        box.becomes("running", after=attempt)
        cluster.until(lambda: box.containers() == ["running"], SECONDS)
        box.inside(f"md5sum -c /root/sum; echo {round_} >> /root/rounds")
        with suppress(Refused):  # its runner may be away, or a snapshot under way
            box.order("snapshots", message="meanwhile")
            _strike(cluster, docker_daemon, dice)
        cluster.until(lambda: box.look()["status"] == "running" and box.containers() == ["running"], SECONDS)
    assert box.inside("cat /root/rounds") == "1\n2\n"


def _strike(cluster: Rig, daemon: Daemon, dice: random.Random) -> None:
    """Kill somebody at a moment of his work, and start him again."""
    time.sleep(dice.choice((0.0, 0.1, 0.3, 0.6)))
    victim = dice.choice(("host", "runner", "docker"))
    if victim == "docker":
        daemon.kill()
        daemon.restart()
        return
    part = cluster.host if victim == "host" else cluster.runners["alpha"]
    part.kill()
    part.start()
