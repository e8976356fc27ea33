"""`kill -9` of anything at any moment, under load: no task lost, none run twice, every exit code and byte right."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.cluster import Refused
from tests.cluster.conftest import PROCESS, MakeRig, docker_env
from tests.cluster.rig import Rig
from tests.docker_daemon import Daemon

ROUNDS, ROUNDS_WITH_DOCKER = 100, 50
TASKS_A_ROUND = 3
PATIENCE_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Job:
    """A task whose every effect is known beforehand."""

    number: int
    exit_code: int
    lines: int
    pause: str

    def script(self, marks: str) -> str:
        """Leaves one mark each time it runs, writes its lines with a pause in the middle, ends with its code."""
        half = self.lines // 2
        count = "while [ $i -lt {0} ]; do echo line $i of " + str(self.number) + "; i=$((i+1)); done; "
        return (
            f"echo ran >> {marks}/{self.number}; i=0; "
            + count.format(half)
            + f"sleep {self.pause}; "
            + count.format(self.lines)
            + f"printf 'the end of {self.number}' >&2; exit {self.exit_code}"
        )

    def stdout(self) -> bytes:
        return b"".join(b"line %d of %d\n" % (i, self.number) for i in range(self.lines))

    def stderr(self) -> bytes:
        return b"the end of %d" % self.number


@pytest.mark.artifact
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_run_twice_when_host_and_runners_with_processes_are_killed(
    make_rig: MakeRig, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    rig = make_rig(("alpha", "beta"), PROCESS)
    victims = {"host": _cycle(rig.host.kill, rig.host.start)}
    victims |= {name: _cycle(runner.kill, runner.start) for name, runner in rig.runners.items()}
    jobs = _storm(rig, victims, ROUNDS, lambda job: {"arguments": ["-c", job.script(str(marks))]})
    assert _wrongs(rig, jobs, marks) == []


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_or_run_twice_when_host_runners_and_docker_daemon_are_killed(
    make_rig: MakeRig, tmp_path: Path, docker_daemon: Daemon
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    rig = make_rig(("alpha", "beta"), docker_env(docker_daemon, marks))
    victims = {"host": _cycle(rig.host.kill, rig.host.start)}
    victims |= {name: _cycle(runner.kill, runner.start) for name, runner in rig.runners.items()}
    victims["dockerd"] = _cycle(docker_daemon.kill, docker_daemon.restart)
    mount = {"additional_mounts": [f"{marks}:/marks"]}
    jobs = _storm(rig, victims, ROUNDS_WITH_DOCKER, lambda job: {"arguments": ["-c", job.script("/marks")], **mount})
    assert _wrongs(rig, jobs, marks) == []


Cycle = Callable[[float], None]


def _cycle(kill: Callable[[], None], start: Callable[[], None]) -> Cycle:
    def cycle(pause_seconds: float) -> None:
        kill()
        if pause_seconds:
            time.sleep(pause_seconds)
        start()

    return cycle


def _storm(
    rig: Rig, victims: dict[str, Cycle], rounds: int, asked: Callable[[Job], dict[str, object]]
) -> dict[str, Job]:
    """Submit and kill in turn; the tasks by id."""
    draw = random.Random(20261123)
    jobs: dict[str, Job] = {}
    for number in range(rounds):
        for _ in range(TASKS_A_ROUND):
            job = Job(len(jobs), draw.choice((0, 0, 3, 77)), draw.choice((0, 10, 400)), draw.choice(("0", "0.2", "1")))
            task = {"command": "sh", "name": f"job {job.number}", "required_cores": 0, **asked(job)}
            jobs[rig.submit(task)] = job
        time.sleep(draw.random() * 0.4)
        victims[draw.choice(sorted(victims))](draw.choice((0.0, 0.1, 0.5)))
        if number % 10 == 9:  # never so far behind that all the killing falls before the work
            rig.until(lambda: _waiting(rig) < 30, PATIENCE_SECONDS)
    return jobs


def _waiting(rig: Rig) -> int:
    counts = rig.ask("GET", "/api/health")["tasks"]
    return int(counts["pending"] + counts["assigning"] + counts["running"])


def _wrongs(rig: Rig, jobs: dict[str, Job], marks: Path) -> list[str]:
    """What is not as it should be, a line each."""
    found = []
    for task_id, job in jobs.items():
        task = rig.wait(task_id, PATIENCE_SECONDS)
        mark = marks / str(job.number)
        times = mark.read_text().count("ran") if mark.exists() else 0
        wanted = ("completed" if job.exit_code == 0 else "failed", job.exit_code)
        if (task["status"], task["exit_code"]) != wanted:
            found.append(f"{job}: {task['status']} {task['exit_code']} {task['error_message']}, wanted {wanted}")
        if times != 1:
            found.append(f"{job}: ran {times} times")
        for name, bytes_wanted in (("stdout", job.stdout()), ("stderr", job.stderr())):
            written = _output(rig, task_id, name)
            if written != bytes_wanted:
                found.append(f"{job}: {name} of {len(written)} bytes, wanted {len(bytes_wanted)}: {written[-200:]!r}")
    return found


def _output(rig: Rig, task_id: str, name: str) -> bytes:
    try:
        return rig.output(task_id, name)
    except Refused as refused:
        return str(refused).encode()
