"""How tasks end: by themselves, by being asked to, by force; and what is said of it."""

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cluster.cluster import Cluster, Refused
from tests.cluster.conftest import FAKE_KIND, PROCESS_KIND, on, on_docker, on_real_machines
from tests.cluster.in_process import FakeCluster
from tests.cluster.rig import Rig
from tests.docker_daemon import Daemon

CLONE_NEWNET = 0x40000000  # sched.h
OBEYS = "trap 'echo goodbye; exit 3' TERM; echo ready; sleep 60 & wait"
IGNORES = "trap '' TERM; echo ready; sleep 60"


class EmptyRegistry(BaseHTTPRequestHandler):
    """A registry of images that has none."""

    def do_GET(self) -> None:
        here = self.path == "/v2/"
        body = b"{}" if here else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        self.send_response(200 if here else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def listen_beside(daemon: Daemon) -> socket.socket:
    """A listening socket on the loopback of the daemon's network namespace; made by a thread that goes there."""

    def make() -> socket.socket:
        namespace = os.open(daemon.directory / "net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(namespace)
        return socket.create_server(("127.0.0.1", 0))

    with ThreadPoolExecutor(1) as there:
        return there.submit(make).result()


@contextmanager
def empty_registry(daemon: Daemon) -> Iterator[str]:
    """Its address, for that daemon."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyRegistry, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = listen_beside(daemon)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def test_a_program_that_does_not_exist_is_said_to_be_missing(cluster: Cluster) -> None:
    task = cluster.run("no-such-program", "--at-all")
    assert (task["status"], task["exit_code"]) == ("failed", None)
    assert "no-such-program" in task["error_message"]
    assert task["attempt"] == 1, "no other node is asked in vain"


@on(PROCESS_KIND)  # Docker makes the directory
def test_a_directory_that_does_not_exist_is_no_place_to_begin_in(cluster: Cluster) -> None:
    task = cluster.run("pwd", working_dir="/no/such/place")
    assert task["status"] == "failed"
    assert "/no/such/place" in task["error_message"]


@on(FAKE_KIND)
def test_an_image_that_exists_nowhere_is_said_to_be_missing(cluster: FakeCluster) -> None:
    for faults in cluster.faults.values():
        faults.missing_images.add("kohakuriver/nothing:base")
    task = cluster.run("true", container_name="nothing")
    assert (task["status"], task["exit_code"]) == ("failed", None)
    assert "kohakuriver/nothing:base" in task["error_message"]


@on_docker
def test_an_image_that_its_registry_does_not_have_is_said_to_be_missing(cluster: Rig, docker_daemon: Daemon) -> None:
    with empty_registry(docker_daemon) as registry:
        task = cluster.run("true", registry_image=f"{registry}/nothing:1")
    assert (task["status"], task["exit_code"]) == ("failed", None)
    assert f"{registry}/nothing:1" in task["error_message"]


@on_docker
@pytest.mark.slow
def test_an_environment_that_a_node_does_not_have_is_waited_for_and_the_reason_told(cluster: Rig) -> None:
    task_id = cluster.begin("true", container_name="nothing", targets=["alpha"])

    def waits() -> bool:  # a node may just be trying it again
        task = cluster.task(task_id)
        return task["status"] == "pending" and "kohakuriver/nothing:base" in (task["reason"] or "")

    cluster.until(waits)
    cluster.order(task_id, "kill")
    assert cluster.wait(task_id)["status"] == "killed"


def test_a_killed_task_may_say_goodbye(cluster: Cluster) -> None:
    task_id = cluster.shell(OBEYS)
    cluster.wait_output(task_id, b"ready")
    asked = cluster.order(task_id, "kill")
    assert asked["desired"] == "kill" and asked["status"] != "killed", "it is not killed before it is true"
    task = cluster.wait(task_id)
    assert (task["status"], task["exit_code"], task["signal"]) == ("killed", 3, None)
    assert cluster.output(task_id) == b"ready\ngoodbye\n"


def test_a_task_that_does_not_listen_is_killed_when_the_grace_is_over(cluster: Cluster) -> None:
    task_id = cluster.shell(IGNORES)
    cluster.wait_output(task_id, b"ready")
    cluster.order(task_id, "kill")
    task = cluster.wait(task_id)
    assert (task["status"], task["exit_code"]) == ("killed", 137)


def test_a_paused_task_can_be_killed(cluster: Cluster) -> None:
    task_id = cluster.shell(OBEYS)
    cluster.wait_output(task_id, b"ready")
    cluster.wait_for(task_id, "running")
    cluster.order(task_id, "pause")
    cluster.wait_for(task_id, "paused")
    cluster.order(task_id, "kill")
    assert cluster.wait(task_id)["status"] == "killed"
    assert cluster.output(task_id) == b"ready\ngoodbye\n"


def test_a_waiting_task_is_killed_at_once(cluster: Cluster) -> None:
    cluster.ask("POST", "/api/nodes/alpha/drain", {})
    task_id = cluster.begin("echo", "never", targets=["alpha"])
    assert cluster.order(task_id, "kill")["status"] == "killed"
    cluster.ask("POST", "/api/nodes/alpha/resume")
    assert cluster.run("true", targets=["alpha"])["status"] == "completed"
    assert [entry["status"] for entry in cluster.history(task_id)] == ["pending", "killed"]


def test_what_is_over_cannot_be_killed_paused_or_resumed(cluster: Cluster) -> None:
    task_id = cluster.run("true")["task_id"]
    for what in ("kill", "pause", "resume"):
        with pytest.raises(Refused) as refused:
            cluster.order(task_id, what)
        assert (refused.value.status, refused.value.error["code"]) == (409, "conflict")


@on(FAKE_KIND)
def test_a_task_on_its_way_to_a_slow_node_can_be_killed(cluster: FakeCluster) -> None:
    cluster.faults["alpha"].delay_seconds["ensure_image"] = 60
    try:
        task_id = cluster.begin("echo", "never", targets=["alpha"])
        cluster.wait_for(task_id, "assigning")
        cluster.order(task_id, "kill")
        assert cluster.wait(task_id, 5)["status"] == "killed"
    finally:
        cluster.faults["alpha"].delay_seconds.clear()


@on_real_machines
def test_a_task_on_its_way_to_a_node_that_does_not_answer_can_be_killed(cluster: Rig) -> None:
    runner = cluster.runners["alpha"].process
    assert runner is not None
    runner.send_signal(signal.SIGSTOP)
    try:
        task_id = cluster.begin("echo", "never", targets=["alpha"])
        cluster.wait_for(task_id, "assigning")
        assert cluster.order(task_id, "kill")["desired"] == "kill"
    finally:
        runner.send_signal(signal.SIGCONT)
    assert cluster.wait(task_id)["status"] == "killed"


@on_docker
def test_a_task_whose_image_does_not_arrive_can_be_killed(cluster: Rig, docker_daemon: Daemon) -> None:
    with listen_beside(docker_daemon) as silent_registry:
        silent_registry.settimeout(30)
        image = f"127.0.0.1:{silent_registry.getsockname()[1]}/slow:1"
        task_id = cluster.begin("true", registry_image=image)
        cluster.wait_for(task_id, "assigning")
        silent_registry.accept()[0].close()
        cluster.order(task_id, "kill")
        assert cluster.wait(task_id, 20)["status"] == "killed"


def test_a_paused_task_is_really_frozen_and_goes_on_where_it_was(cluster: Cluster) -> None:
    task_id = cluster.shell("; ".join(f"echo {n}; sleep 0.1" for n in range(15)))
    cluster.wait_output(task_id, b"2\n")
    cluster.wait_for(task_id, "running")
    cluster.order(task_id, "pause")
    cluster.wait_for(task_id, "paused")
    still = cluster.output(task_id)
    with cluster.following(task_id, f"&offset={len(still)}") as more:
        cluster.stays_at(task_id, still)
        cluster.order(task_id, "resume")
        assert more(), "it goes on"
    assert cluster.wait(task_id)["status"] == "completed"
    assert cluster.output(task_id) == b"".join(b"%d\n" % n for n in range(15))
    assert [entry["event"] for entry in cluster.history(task_id) if entry["event"] in ("paused", "resumed")] == [
        "paused",
        "resumed",
    ]


def test_a_task_that_wants_more_memory_than_it_asked_for_is_out_of_memory(cluster: Cluster) -> None:
    task = cluster.run("tail", "/dev/zero", required_memory_bytes=32 * 10**6)
    assert (task["status"], task["exit_code"]) == ("killed_oom", 137)
    assert "memory" in task["error_message"]


def test_exit_code_137_alone_is_not_out_of_memory(cluster: Cluster) -> None:
    task = cluster.run_shell("kill -9 $$", required_memory_bytes=32 * 10**6)
    assert (task["status"], task["exit_code"]) == ("failed", 137)
    task = cluster.run_shell("exit 137", required_memory_bytes=32 * 10**6)
    assert (task["status"], task["exit_code"], task["signal"]) == ("failed", 137, None)


def test_a_task_that_runs_longer_than_its_limit_fails_and_says_so(cluster: Cluster) -> None:
    task = cluster.run("sleep", "60", time_limit_seconds=1, max_attempts=1)
    assert task["status"] == "failed"
    assert "time limit of 1" in task["error_message"]


def test_a_failing_task_is_tried_as_often_as_it_may_and_each_try_is_remembered(cluster: Cluster) -> None:
    task = cluster.run_shell('echo "try $KOHAKURIVER_ATTEMPT"; exit 5', max_attempts=3)
    assert (task["status"], task["exit_code"], task["attempt"]) == ("failed", 5, 3)
    events = [(entry["event"], entry["attempt"]) for entry in cluster.history(task["task_id"])]
    assert [each for each in events if each[0] == "placed"] == [("placed", 1), ("placed", 2), ("placed", 3)]
    assert [event for event, _ in events if event in ("retried", "exited_bad")] == ["retried", "retried", "exited_bad"]
    for attempt in (1, 2, 3):
        said = cluster.output(task["task_id"], query=f"?attempt={attempt}")
        assert said == b"try %d\n" % attempt


def test_a_task_that_fails_for_good_reason_is_not_tried_again_unless_asked(cluster: Cluster) -> None:
    assert cluster.run("false")["attempt"] == 1
    assert cluster.run("false", max_attempts=3, retry_on=["loss"])["attempt"] == 1


@on(FAKE_KIND, PROCESS_KIND)
def test_privileges_are_refused_before_anything_is_queued(cluster: Cluster) -> None:
    with pytest.raises(Refused) as refused:
        cluster.begin("true", privileged=True)
    assert (refused.value.status, refused.value.error["code"]) == (403, "not_allowed")
    assert "privileged" in refused.value.error["message"]
