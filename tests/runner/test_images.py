"""Images come to a node before a workload starts: once each, whole or not at all, whoever dies on the way."""

import asyncio
import io
import json
import os
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kohakuriver.model import runner_api
from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.image import TARBALL_FOLDER, TARBALL_LABEL, Tarball, environment_of
from kohakuriver.model.runner_api import SyncImage, WhichSync
from kohakuriver.runner.tarball_fetch import PART_KEPT_SECONDS
from kohakuriver.system.docker_archives import Transfer
from kohakuriver.system.image_hands import FoundImage, Login, SeenImage
from tests.runner.stage import Stage, play
from tests.system.archive_maker import Archive, member, sha256, tar_of

STEM, NEWER = "lab-1700000001", "lab-1700000002"
LAYER = tar_of([member("bin/sh", bytes(3_000_000))])


@dataclass
class Daemon:
    """The images of a made-up node: it reads archives that are given to it, and pulls what `registry` has."""

    images: dict[str, FoundImage] = field(default_factory=dict)
    registry: dict[str, Login | None] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    pulls: list[tuple[str, Login | None]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    containers: dict[str, int] = field(default_factory=dict)
    ill: bool = False
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    async def ensure(self, image: str, login: Login | None = None, transfer: Transfer | None = None) -> bool:
        if image in self.images:
            return False
        self.pulls.append((image, login))
        await self.go_on.wait()
        if image not in self.registry or self.registry[image] != login:
            raise EngineFailed(f"image {image} is not here and cannot be pulled: unauthorized")
        self.images[image] = FoundImage(f"sha256:{image}", f"{image}@sha256:1", 1, {})
        return True

    async def load(self, path: Path, transfer: Transfer) -> None:
        await self.go_on.wait()
        if self.ill:
            raise EngineFailed("no space left on device", retry_elsewhere=True)
        data = path.read_bytes()
        labels, image = _read(data)
        self.loads.append(labels.get(TARBALL_LABEL, "?"))
        self.images[image] = FoundImage(f"sha256:{sha256(data)}", f"sha256:{sha256(data)}", len(data), labels)

    async def find(self, image: str) -> FoundImage | None:
        return self.images.get(image)

    async def all(self) -> list[SeenImage]:
        return [
            SeenImage(image.id, (name,), image.size_bytes, 0, image.labels, self.containers.get(image.id, 0))
            for name, image in self.images.items()
        ]

    async def directory(self) -> str:
        return "/"

    async def remove(self, name_or_id: str) -> None:
        self.removed.append(name_or_id)
        self.images = {n: i for n, i in self.images.items() if name_or_id not in (n, i.id)}


def _read(data: bytes) -> tuple[Mapping[str, str], str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        config = json.load(tar.extractfile(manifest["Config"]))  # type: ignore[arg-type]
    return config["config"]["Labels"], manifest["RepoTags"][0]


def data_of(stem: str, layer: bytes = LAYER) -> bytes:
    return Archive(layer=layer, labels={TARBALL_LABEL: stem}).data()


def tarball_of(stem: str, data: bytes) -> Tarball:
    environment, made_at = environment_of(stem)
    return Tarball(stem=stem, environment=environment, made_at=made_at, size_bytes=len(data), digest=sha256(data))


def lab(stage: Stage, stem: str = STEM, data: bytes | None = None) -> Tarball:
    """The host has this tarball; what it tells of it."""
    stage.host.tarballs[stem] = data_of(stem) if data is None else data
    return tarball_of(stem, stage.host.tarballs[stem])


async def with_images(stage: Stage, **settings: Any) -> Daemon:
    """The runner is up, on a node whose engine has images."""
    daemon = stage.node.images = Daemon()
    await stage.start_runner(**settings)
    await stage.at_rest()
    return daemon


def contents_below(directory: Path) -> list[bytes]:
    """What the files hold; some go while one looks."""
    found = []
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):
            found.append(path.read_bytes())
    return found


def left(stage: Stage) -> list[str]:
    return [path.name for path in (stage.directory / "state/images").glob("*")]


def test_a_task_brings_its_environment_and_tells_which_image_it_got(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        tarball = lab(stage)
        await stage.execute("true", container_name="lab", tarball=tarball)
        end = await stage.told("ended")
        assert (end.exit_code, end.image_digest) == (0, f"sha256:{tarball.digest}")
        assert daemon.loads == [STEM] and left(stage) == []
        await stage.execute("true", container_name="lab", tarball=tarball, task_id=2)
        await stage.told("ended", 2)
        assert daemon.loads == [STEM] and stage.host.offsets == [0]

    play(tmp_path, script, runner=False)


def test_a_newer_tarball_takes_the_place_of_an_older_one_and_the_other_way_round(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        for number, stem in enumerate((STEM, NEWER, STEM), 1):
            await stage.execute("true", container_name="lab", tarball=lab(stage, stem), task_id=number)
            await stage.told("ended", number)
        assert daemon.loads == [STEM, NEWER, STEM]

    play(tmp_path, script, runner=False)


def test_however_many_tasks_wait_an_image_comes_once(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        daemon.go_on.clear()
        tarball = lab(stage)
        for number in range(1, 9):
            await stage.execute("true", container_name="lab", tarball=tarball, task_id=number)
        await stage.until(lambda: len(stage.host.told) == 8 and all(s.message for s in stage.host.told.values()))
        told = next(iter(stage.host.told.values()))
        assert told.message and ("lab" in told.message)
        await stage.kill(8, grace_seconds=0)
        await stage.told("ended", 8)
        daemon.go_on.set()
        for number in range(1, 8):
            assert (await stage.told("ended", number)).exit_code == 0
        assert daemon.loads == [STEM] and stage.host.offsets == [0]

    play(tmp_path, script, runner=False)


def test_a_download_goes_on_where_the_host_was_killed(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await with_images(stage)
        tarball = lab(stage)
        stage.host.cuts = [1_000_000, 0, 500_000]
        await stage.execute("true", container_name="lab", tarball=tarball)
        await stage.told("ended", pass_seconds=0.1)
        first, *others = stage.host.offsets
        assert first == 0 and others[0] == others[1] > 0 and others[2] > others[1]

    play(tmp_path, script, runner=False)


def test_a_download_goes_on_where_the_runner_was_killed(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await with_images(stage)
        tarball = lab(stage)
        stage.host.cuts = [1_000_000] + [0] * 1000
        await stage.execute("true", container_name="lab", tarball=tarball)
        await stage.until(lambda: len(stage.host.offsets) > 2, pass_seconds=0.1)
        await stage.another_runner()
        stage.host.cuts.clear()
        before = len(stage.host.offsets)
        await stage.told("ended", pass_seconds=0.1)
        assert stage.host.offsets[before] > 0 and left(stage) == []

    play(tmp_path, script, runner=False)


def test_what_arrives_otherwise_than_it_was_announced_is_never_loaded(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        announced = tarball_of(STEM, data_of(STEM))
        stage.host.tarballs[STEM] = data_of(STEM, tar_of([member("bin/sh", bytes(2_999_999) + b"!")]))
        assert len(stage.host.tarballs[STEM]) == announced.size_bytes
        await stage.execute("true", container_name="lab", tarball=announced)
        end = await stage.told("ended")
        assert end.refused and end.retry_elsewhere and "did not arrive as it is" in (end.message or "")
        assert daemon.loads == [] and left(stage) == []

    play(tmp_path, script, runner=False)


def test_a_hostile_tarball_is_an_error_with_a_reason_and_never_loaded(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        bad = {
            "leads out of it": Archive(layer=LAYER, more=[member("../../etc/cron.d/x", b"x")]),
            "not kohakuriver/lab:base alone": Archive(layer=LAYER, image="debian:12"),
            "leads out of the image": Archive(layer=tar_of([member("../../x", b"x")])),
            "says that it is 'no tarball'": Archive(layer=LAYER),
        }
        for number, (reason, archive) in enumerate(bad.items(), 1):
            tarball = lab(stage, f"lab-{1700000000 + number}", archive.data())
            await stage.execute("true", container_name="lab", tarball=tarball, task_id=number)
            end = await stage.told("ended", number)
            assert end.refused and not end.retry_elsewhere and reason in (end.message or ""), end
        assert daemon.loads == [] and left(stage) == []

    play(tmp_path, script, runner=False)


def test_what_broke_off_long_ago_makes_room_for_what_comes(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await with_images(stage)
        for name, age_seconds in (("old", PART_KEPT_SECONDS + 1), ("young", PART_KEPT_SECONDS - 60)):
            part = stage.directory / "state/images" / f"{name}.part"
            part.parent.mkdir(exist_ok=True)
            part.write_bytes(b"x")
            os.utime(part, times=(0, stage.clock.now() - age_seconds))
        await stage.execute("true", container_name="lab", tarball=lab(stage))
        await stage.told("ended")
        assert left(stage) == ["young.part"]

    play(tmp_path, script, runner=False)


def test_an_image_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await with_images(stage, image_limit_bytes=2_000_000)
        await stage.execute("true", container_name="lab", tarball=lab(stage))
        assert "IMAGE_LIMIT_BYTES" in ((await stage.told("ended")).message or "")

    play(tmp_path, script, runner=False)


def test_a_tarball_that_was_deleted_meanwhile_sends_the_task_back(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await with_images(stage)
        tarball = lab(stage)
        stage.host.tarballs.clear()
        await stage.execute("true", container_name="lab", tarball=tarball)
        end = await stage.told("ended")
        assert end.refused and end.retry_elsewhere and "there is no tarball" in (end.message or "")

    play(tmp_path, script, runner=False)


def test_a_daemon_that_cannot_take_it_says_why(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        daemon.ill = True
        await stage.execute("true", container_name="lab", tarball=lab(stage))
        end = await stage.told("ended", pass_seconds=0.1)
        assert end.refused and end.retry_elsewhere and "no space left" in (end.message or "")

    play(tmp_path, script, runner=False)


def test_shared_storage_is_read_instead_of_asking_the_host(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        shared = tmp_path / "shared"
        (shared / TARBALL_FOLDER).mkdir(parents=True)
        (shared / ".kohakuriver-cluster").write_text(stage.host.cluster_id)
        daemon = await with_images(stage, shared_dir=str(shared))
        tarball = lab(stage)
        (shared / TARBALL_FOLDER / f"{STEM}.tar").write_bytes(stage.host.tarballs[STEM])
        await stage.until(lambda: stage.runner.bench.shared.verdict.usable, pass_seconds=1.0)
        await stage.execute("true", container_name="lab", tarball=tarball)
        await stage.told("ended")
        assert daemon.loads == [STEM] and stage.host.offsets == []
        assert (shared / TARBALL_FOLDER / f"{STEM}.tar").exists()
        newer = lab(stage, NEWER)  # not in the shared storage, or not yet whole there
        (shared / TARBALL_FOLDER / f"{NEWER}.tar").write_bytes(stage.host.tarballs[NEWER][:5000])
        await stage.execute("true", container_name="lab", tarball=newer, task_id=2)
        await stage.told("ended", 2)
        assert daemon.loads == [STEM, NEWER] and stage.host.offsets == [0]

    play(tmp_path, script, runner=False)


def test_an_environment_can_be_brought_before_any_task_needs_it(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        daemon.go_on.clear()
        tarball = lab(stage)
        which = WhichSync(stem=STEM)
        assert (await stage.call(runner_api.SYNC_SHOW, which)).phase == "absent"
        assert (await stage.call(runner_api.SYNC, SyncImage(tarball=tarball))).phase == "fetching"
        await stage.until(lambda: stage.host.offsets)
        daemon.go_on.set()
        await stage.until(lambda: daemon.loads)
        async with asyncio.timeout(20):
            while (await stage.call(runner_api.SYNC_SHOW, which)).phase != "present":
                await asyncio.sleep(0.01)
        assert (await stage.call(runner_api.SYNC, SyncImage(tarball=tarball))).phase == "present"
        stage.host.tarballs.clear()
        missing = replace(tarball, stem=NEWER, made_at=1700000002)
        await stage.call(runner_api.SYNC, SyncImage(tarball=missing))
        async with asyncio.timeout(20):
            while (seen := await stage.call(runner_api.SYNC_SHOW, WhichSync(stem=NEWER))).phase != "failed":
                await asyncio.sleep(0.01)
        assert "there is no tarball" in seen.message

    play(tmp_path, script, runner=False)


LOGIN = "ada:correct horse"


def test_a_registry_image_is_pulled_with_the_login_of_the_request_which_is_nowhere_written_down(
    tmp_path: Path,
) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        daemon.registry["private/x:1"] = Login("ada", "correct horse")
        await stage.execute("true", registry_image="private/x:1", registry_login=LOGIN)
        end = await stage.told("ended")
        assert (end.exit_code, end.image_digest) == (0, "private/x:1@sha256:1")
        assert daemon.pulls == [("private/x:1", Login("ada", "correct horse"))]
        written = contents_below(tmp_path / "state")
        assert written and not [data for data in written if b"correct horse" in data]
        await stage.execute("true", registry_image="private/y:1", registry_login="ada:wrong", task_id=2)
        end = await stage.told("ended", 2)
        assert end.refused and "unauthorized" in (end.message or "") and "wrong" not in (end.message or "")

    play(tmp_path, script, runner=False)


def test_a_login_that_died_with_the_runner_is_asked_for_again_from_the_host(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        daemon.registry["private/x:1"] = Login("ada", "correct horse")
        daemon.go_on.clear()
        await stage.execute("true", registry_image="private/x:1", registry_login=LOGIN)
        await stage.until(lambda: daemon.pulls)
        await stage.another_runner()
        daemon.go_on.set()
        end = await stage.told("ended")
        assert end.refused and end.retry_elsewhere and "password" in (end.message or "")

    play(tmp_path, script, runner=False)
