"""What the process engine promises beyond the contract: limits, environment, refusals, full disks, privacy."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model.errors import Conflict, EngineFailed
from kohakuriver.system.engine import ContainerSpec, Engine, Exit, Mount, Phase
from kohakuriver.system.process_engine import ProcessEngine
from kohakuriver.system.process_keeper import scope_of
from tests.system.engine_rig import CLUSTER, NODE, Rig, exited, launch, ran, stderr, stdout, with_engine
from tests.system.process_rig import (
    CAN_LIMIT,
    keeper_of,
    leaves_nothing_behind,
    process_rig,
    processes_of,
    state_of,
    supervisor_of,
)

needs_control_groups = pytest.mark.skipif(not CAN_LIMIT, reason="only root may make control groups")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    yield process_rig(tmp_path, control_groups=True)
    leaves_nothing_behind(tmp_path)


async def refused(engine: Engine, spec: ContainerSpec) -> EngineFailed:
    """What create or start says against it; it is removed again."""
    with pytest.raises(EngineFailed) as caught:
        await launch(engine, spec)
    await engine.remove(spec.key)
    assert "\n" not in str(caught.value)
    return caught.value


def groups_of(rig: Rig, name: str) -> list[Path]:
    return sorted(Path("/sys/fs/cgroup").glob(f"**/kohakuriver/{scope_of(str(state_of(rig.directory)))}/{name}"))


class TestEnvironment:
    """What the program finds around it."""

    @with_engine
    async def test_it_is_what_was_given_and_a_path_and_a_home_and_no_gpu(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("env", "-0", env={"A": "1", "LINES": "a\nb"})
        await ran(engine, spec)
        assert dict(word.split("=", 1) for word in stdout(spec).decode().split("\0")[:-1]) == {
            "A": "1",
            "LINES": "a\nb",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.path.expanduser("~"),
            "CUDA_VISIBLE_DEVICES": "",
            "NVIDIA_VISIBLE_DEVICES": "void",
        }

    @with_engine
    async def test_only_the_gpus_it_was_given_are_visible(self, rig: Rig, engine: Engine) -> None:
        script = 'printf %s "$CUDA_VISIBLE_DEVICES/$NVIDIA_VISIBLE_DEVICES"'
        spec = rig.shell(script, gpu_ids=("1", "GPU-5"), env={"CUDA_VISIBLE_DEVICES": "0,1,2,3"})
        await ran(engine, spec)
        assert stdout(spec) == b"1,GPU-5/1,GPU-5"

    @with_engine
    async def test_the_program_is_looked_for_in_its_own_path(self, rig: Rig, engine: Engine) -> None:
        program = rig.directory / "bin" / "frobnicate"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho frobnicated\n")
        program.chmod(0o755)
        spec = rig.spec("frobnicate", env={"PATH": f"/nowhere:{program.parent}"})
        await ran(engine, spec)
        assert stdout(spec) == b"frobnicated\n"

    @with_engine
    async def test_it_has_no_descriptors_but_its_three(self, rig: Rig, engine: Engine) -> None:
        for number in (1, 2):  # the second time the supervisor has had another one before
            spec = rig.spec("ls", "/proc/self/fd", task_id=number)
            await ran(engine, spec)
            assert stdout(spec).split() == [b"0", b"1", b"2", b"3"], "the last is that of ls itself"

    @with_engine
    async def test_it_ignores_and_blocks_no_signals(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
        await ran(engine, spec)
        blocked, ignored = (int(word, 16) for word in stdout(spec).split()[1::2])
        assert blocked == 0
        assert ignored & 0x7FFF_FFFF == 0, "glibc lets a spawned program ignore 32 and 33, which are its own"

    @with_engine
    async def test_pinning_one_does_not_pin_the_next(self, rig: Rig, engine: Engine) -> None:
        pinned, free = rig.spec("nproc", cpu_ids=(0,)), rig.spec("nproc", task_id=2)
        await ran(engine, pinned)
        await ran(engine, free)
        assert stdout(pinned) == b"1\n"
        assert stdout(free) == b"%d\n" % len(os.sched_getaffinity(0))

    @with_engine
    async def test_a_numa_node_means_its_cores_and_its_memory(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("cat", "/proc/self/numa_maps", numa_node=0)
        if not Path("/sys/devices/system/node/node0").exists():
            pytest.skip("a kernel without NUMA")
        assert await ran(engine, spec) == Exit(0)
        assert b"bind:0" in stdout(spec) or not stdout(spec)


class TestRefusals:
    """What a process cannot have is refused in one clear line, before anything runs."""

    @with_engine
    async def test_what_needs_a_container(self, rig: Rig, engine: Engine) -> None:
        assert "mount" in str(await refused(engine, rig.spec("true", mounts=(Mount("/a", "/b"),))))
        assert "privileged" in str(await refused(engine, rig.spec("true", privileged=True)))

    @with_engine
    async def test_what_no_program_can_be_given(self, rig: Rig, engine: Engine) -> None:
        plain_file = rig.directory / "plain"
        plain_file.write_text("true\n")
        for spec, word in (
            (rig.spec(), "command"),
            (rig.spec("a\0b"), "NUL"),
            (rig.spec("true", env={"A=B": "1"}), "A=B"),
            (rig.spec("true", env={"A": "\0"}), "'A'"),
            (rig.spec("true", working_dir="/\0"), "NUL"),
            (rig.spec("true", "x" * 1_000_000), "Argument list too long"),
            (rig.spec("true", working_dir="/nowhere"), "/nowhere"),
            (rig.spec(str(plain_file)), "Permission denied"),
            (rig.spec("true", cpu_ids=(4000,)), "4000"),
            (rig.spec("true", numa_node=900), "NUMA node 900"),
        ):
            failure = await refused(engine, spec)
            assert word in str(failure)
            assert not failure.retry_elsewhere

    @with_engine
    async def test_log_files_that_cannot_be_made(self, rig: Rig, engine: Engine) -> None:
        (rig.directory / "file").touch()
        failure = await refused(engine, rig.spec("true", log_directory=rig.directory / "file" / "logs"))
        assert "log files" in str(failure)

    @with_engine
    async def test_a_failed_start_may_be_tried_again(self, rig: Rig, engine: Engine) -> None:
        place = rig.directory / "later"
        spec = rig.spec("pwd", working_dir=str(place))
        await engine.create(spec)
        with pytest.raises(EngineFailed):
            await engine.start(spec)
        assert (await engine.observe(spec.key)).phase is Phase.CREATED
        place.mkdir()
        await engine.start(spec)
        assert await exited(engine, spec.key) == Exit(0)

    def test_a_directory_that_others_can_write(self, tmp_path: Path) -> None:
        engine = ProcessEngine(tmp_path, CLUSTER, NODE)
        (tmp_path / f"{CLUSTER}@{NODE}").mkdir()
        (tmp_path / f"{CLUSTER}@{NODE}").chmod(0o777)
        with pytest.raises(EngineFailed, match="written by others"):
            asyncio.run(engine.open())


class TestLimits:
    """Control groups hold what they promise."""

    @needs_control_groups
    @with_engine
    async def test_memory_taken_by_a_child_is_told_when_the_workload_fails_of_it(
        self, rig: Rig, engine: Engine
    ) -> None:
        spec = rig.shell("tail /dev/zero; exit 77", memory_bytes=64_000_000)
        assert await ran(engine, spec) == Exit(77, None, oom_killed=True)

    @needs_control_groups
    @with_engine
    async def test_a_workload_that_survives_it_has_succeeded(self, rig: Rig, engine: Engine) -> None:
        assert await ran(engine, rig.shell("tail /dev/zero; exit 0", memory_bytes=64_000_000)) == Exit(0)

    @needs_control_groups
    @with_engine
    async def test_the_number_of_processes_and_cpus_is_limited(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "30", pids_limit=5, cpu_count=1)
        await launch(engine, spec)
        files = [
            group / name for group in groups_of(rig, "1-1") for name in ("pids.max", "cpu.cfs_quota_us", "cpu.max")
        ]
        assert {path.read_text().split()[0] for path in files if path.exists()} == {"5", "100000"}
        await engine.signal(spec.key, signal.SIGKILL)
        await exited(engine, spec.key)
        assert groups_of(rig, "1-1") == []

    @needs_control_groups
    @with_engine
    async def test_more_processes_than_allowed_cannot_be_made(self, rig: Rig, engine: Engine) -> None:
        assert await ran(engine, rig.spec("true", task_id=2, pids_limit=1)) == Exit(0)
        spec = rig.shell("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; sleep 5", pids_limit=5)
        assert (await ran(engine, spec)).code != 0
        assert b"fork" in stderr(spec)

    @needs_control_groups
    @with_engine
    async def test_a_bomb_of_processes_is_defused(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("b() { echo $$; b | b & }; b; sleep 1000", pids_limit=40, log_limit_bytes=10_000)
        await launch(engine, spec)
        await asyncio.sleep(0.5)
        begun = time.monotonic()
        await engine.remove(spec.key)
        assert time.monotonic() - begun < 5
        assert await engine.observe_all() == []

    @needs_control_groups
    @with_engine
    async def test_it_says_which_control_groups_it_uses(self, rig: Rig, engine: Engine) -> None:
        info = await engine.describe()
        assert info.version in ("cgroup v1", "cgroup v2")
        assert info.limits_cpu

    def test_without_them_it_says_so_and_each_process_is_refused_more_memory(self, tmp_path: Path) -> None:
        rig = process_rig(tmp_path, control_groups=False)

        async def script() -> None:
            engine = rig.make(CLUSTER, NODE)
            await engine.open()
            info = await engine.describe()
            assert (info.version, info.limits_memory, info.limits_cpu) == ("no control groups", False, False)
            spec = rig.shell("ulimit -d; ulimit -Hd", memory_bytes=64_000_000)
            await ran(engine, spec)
            assert stdout(spec).split()[0] == b"62500"
            free = rig.shell("ulimit -d", task_id=2)
            await ran(engine, free)
            assert stdout(free) == b"unlimited\n"
            for each in (spec, free):
                await engine.remove(each.key)
            await engine.close()

        asyncio.run(script())
        leaves_nothing_behind(tmp_path)


class TestFullDisk:
    """A disk without room refuses new work and forgets nothing."""

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], check=True)
        try:
            yield Rig(make=lambda cluster, name: ProcessEngine(small, cluster, name), directory=tmp_path)
            leaves_nothing_behind(small)
        finally:
            subprocess.run(["umount", str(small)], check=True)

    @needs_root
    @with_engine
    async def test_new_work_is_refused_and_what_runs_ends_true(self, rig: Rig, engine: Engine) -> None:
        running = rig.shell("sleep 0.4; echo done; exit 5")
        await launch(engine, running)
        ballast = rig.directory / "small" / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(300_000))
        failure = await refused(engine, rig.spec("true", task_id=2))
        assert failure.retry_elsewhere
        assert "No space" in str(failure)
        assert await exited(engine, running.key) == Exit(5)
        ballast.unlink()
        assert await ran(engine, rig.spec("true", task_id=3)) == Exit(0)

    @needs_root
    @with_engine
    async def test_lost_output_is_said_in_the_file(self, rig: Rig, engine: Engine) -> None:
        script = "echo begin; head -c 400000 /dev/zero; echo wait; sleep 0.5; echo end; exit 5"
        spec = rig.shell(script, log_directory=rig.directory / "small" / "logs")
        await launch(engine, spec)
        while (await engine.observe(spec.key)).phase is Phase.RUNNING and len(stdout(spec)) < 150_000:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        with (spec.log_directory / "stdout").open("r+b") as file:
            file.truncate(20)
        assert await exited(engine, spec.key) == Exit(5)
        assert b"[kohakuriver: output lost here: No space left on device]\nend\n" in stdout(spec)

    @needs_root
    @with_engine
    async def test_output_lost_to_the_end_is_said_in_the_file_although_the_disk_is_full(
        self, rig: Rig, engine: Engine
    ) -> None:
        spec = rig.shell("yes | head -c 400000; exit 5", log_directory=rig.directory / "small" / "logs")
        await launch(engine, spec)
        assert await exited(engine, spec.key) == Exit(5)
        said = b"y\n\n[kohakuriver: output lost here: No space left on device]\n"
        assert stdout(spec).endswith(said) and 0 < len(stdout(spec)) < 400_000


class TestPrivacyAndOrder:
    """Who can reach the keeper, and when it goes."""

    @with_engine
    async def test_only_this_user_can_reach_the_keeper(self, rig: Rig, engine: Engine) -> None:
        place = state_of(rig.directory)
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE((place / "keeper.sock").stat().st_mode) == 0o600

    @with_engine
    async def test_log_files_can_be_read_by_others(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("true")
        await ran(engine, spec)
        assert stat.S_IMODE((spec.log_directory / "stdout").stat().st_mode) == 0o644

    def test_a_very_long_path_is_no_obstacle(self, tmp_path: Path) -> None:
        place = tmp_path / ("x" * 200)

        async def script() -> None:
            engine = ProcessEngine(place, "c" * 60, "n" * 60)
            await engine.open()
            assert (await engine.describe()).name == "process"
            await engine.close()

        asyncio.run(script())
        leaves_nothing_behind(place)

    @with_engine
    async def test_two_engines_at_once_share_one_keeper(self, rig: Rig, engine: Engine) -> None:
        others = [rig.make(CLUSTER, NODE) for _ in range(4)]
        await asyncio.gather(*(other.open() for other in others))
        assert len(processes_of(rig.directory)) == 1
        spec = rig.shell("exit 3")
        await others[0].create(spec)
        await others[1].start(spec)
        assert await exited(others[2], spec.key) == Exit(3)
        for other in others:
            await other.close()

    @with_engine
    async def test_the_keeper_leaves_on_term_and_another_comes(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("sleep 0.5; exit 3")
        await launch(engine, spec)
        first = keeper_of(rig.directory)
        assert first is not None
        os.kill(first, signal.SIGTERM)
        assert await exited(engine, spec.key) == Exit(3)
        assert keeper_of(rig.directory) not in (first, None)

    @with_engine
    async def test_an_older_attempt_does_not_take_the_place_of_a_newer(self, rig: Rig, engine: Engine) -> None:
        newer = rig.spec("sleep", "30", attempt=2)
        await launch(engine, newer)
        with pytest.raises(Conflict):
            await engine.create(rig.spec("sleep", "30", attempt=1))
        assert (await engine.observe(newer.key)).phase is Phase.RUNNING

    @with_engine
    async def test_a_signal_sent_to_a_supervisor_by_mistake_does_nothing(self, rig: Rig, engine: Engine) -> None:
        spec = rig.shell("sleep 0.4; exit 3")
        await launch(engine, spec)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(supervisor_of(rig.directory, spec), number)
        assert await exited(engine, spec.key) == Exit(3)

    @with_engine
    async def test_a_request_whose_asker_was_cancelled_does_no_harm(self, rig: Rig, engine: Engine) -> None:
        spec = rig.spec("sleep", "30")
        await engine.create(spec)
        asking = asyncio.create_task(engine.start(spec))
        await asyncio.sleep(0)
        asking.cancel()
        await engine.start(spec)
        assert (await engine.observe(spec.key)).phase is Phase.RUNNING

    @with_engine
    async def test_a_quick_succession_costs_little(self, rig: Rig, engine: Engine) -> None:
        async def one(number: int) -> None:
            spec = rig.spec("true", task_id=number)
            await ran(engine, spec)
            await engine.remove(spec.key)

        await one(1)
        before = _cpu_seconds(rig.directory)
        for first in range(2, 102, 10):
            await asyncio.gather(*(one(number) for number in range(first, first + 10)))
        spent = _cpu_seconds(rig.directory) - before
        assert spent / 100 < 0.01, "most of it is the program's own start"


def _cpu_seconds(directory: Path) -> float:
    """What keeper and supervisors, and what they waited for, have used so far."""
    total = 0
    for pid in processes_of(directory):
        total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


class TestStrangers:
    """What an old journal says of a pid means nothing once the pid belongs to somebody else."""

    @pytest.mark.parametrize("difference", ["another boot", "another start"])
    @pytest.mark.parametrize("kind", ["groups", "tree"])
    def test_a_stranger_with_an_old_pid_is_left_alone(self, tmp_path: Path, kind: str, difference: str) -> None:
        rig = process_rig(tmp_path, control_groups=kind == "groups")
        stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        spec = rig.spec("true")

        async def script() -> None:
            engine = rig.make(CLUSTER, NODE)
            await engine.open()
            await engine.create(spec)
            await engine.close()
            leaves_nothing_behind(tmp_path)
            _write_old_journal(state_of(tmp_path) / "workloads" / "1-1" / "journal", stranger.pid, difference)
            await engine.open()
            assert await exited(engine, spec.key) == Exit(137, signal.SIGKILL)
            await engine.remove(spec.key)
            await engine.close()

        try:
            asyncio.run(script())
            time.sleep(0.05)
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()
        leaves_nothing_behind(tmp_path)


def _write_old_journal(path: Path, pid: int, difference: str) -> None:
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])
    same_boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    process = [pid, ticks if difference == "another boot" else ticks - 1]
    lines: list[dict[str, Any]] = [
        {"boot": "0" if difference == "another boot" else same_boot, "supervisor": process, "begun_at": 1.0},
        {"main": process, "started_at": 1.0},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
