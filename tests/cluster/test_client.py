"""The commands that people type, against real clusters: what they print, and how they end."""

import json
import os

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import DOCKER_KIND, PROCESS_KIND, Client, on
from tests.ports import free_port

on_processes = on(PROCESS_KIND)


@on(PROCESS_KIND, DOCKER_KIND)
def test_submit_prints_the_id_and_with_wait_ends_as_the_task_does(cluster: Cluster, client: Client) -> None:
    said = client("task", "submit", "--wait", "--shell", 'echo "$GREETING, $1"; echo no >&2; exit 42', "you")
    task_id = said.stdout.decode().strip()
    assert (said.returncode, said.stdout) == (42, f"{task_id}\n".encode())
    assert cluster.task(task_id)["exit_code"] == 42
    said = client("task", "submit", "-e", "GREETING=hi", "-c", "0", "--wait", "--shell", 'echo "$GREETING, $1"', "you")
    assert said.returncode == 0, said.stderr
    logs = client("task", "logs", said.stdout.decode().strip())
    assert (logs.returncode, logs.stdout) == (0, b"hi, you\n")


@on_processes
def test_arguments_reach_the_program_as_typed(cluster: Cluster, client: Client) -> None:
    typed = ["two  spaces", "", "$HOME", "a\nb", "-x", "--wait", "'", '"', "*", "äöü 🦆"]
    said = client("task", "submit", "--wait", "--", "printf", "%s\\000", *typed)
    assert said.returncode == 0, said.stderr
    logs = client("task", "logs", said.stdout.decode().strip())
    assert logs.stdout == b"".join(os.fsencode(word) + b"\0" for word in typed)


@on_processes
def test_one_id_a_line_for_several_targets_and_the_first_failure_counts(cluster: Cluster, client: Client) -> None:
    script = 'test "$KOHAKURIVER_NODE" = alpha || exit 9'
    said = client("task", "submit", "-t", "alpha", "-t", "beta", "--wait", "--shell", script)
    task_ids = said.stdout.decode().split()
    assert (said.returncode, len(task_ids)) == (9, 2)
    assert [cluster.task(task_id)["assigned_node"] for task_id in task_ids] == ["alpha", "beta"]


@on_processes
def test_logs_gives_each_stream_its_tail_and_follows_to_the_end(cluster: Cluster, client: Client) -> None:
    task_id = cluster.shell("printf 'one\\ntwo\\n\\377'; echo wrong >&2; sleep 0.5; echo last")
    followed = client("task", "logs", "-f", task_id)
    assert (followed.returncode, followed.stdout) == (0, b"one\ntwo\n\xfflast\n")
    assert client("task", "logs", "--stderr", task_id).stdout == b"wrong\n"
    assert client("task", "logs", "--tail", "1", task_id).stdout == b"\xfflast\n"
    both = client("task", "logs", "--both", task_id)
    assert (both.stdout, both.stderr) == (b"one\ntwo\n\xfflast\n", b"wrong\n")


@on_processes
def test_lists_show_what_there_is_and_json_is_the_raw_answer(cluster: Cluster, client: Client) -> None:
    task_id = cluster.run("echo", "hello", name="greeting of the day")["task_id"]
    listed = client("task", "list").stdout.decode()
    row = next(line for line in listed.splitlines() if task_id in line)
    assert "completed" in row and "greeting of the day" in row
    raw = json.loads(client("--json", "task", "list", "--limit", "1").stdout)
    assert raw == cluster.ask("GET", "/api/tasks?limit=1")
    nodes = client("node", "list").stdout.decode()
    assert all(any(name in line and "online" in line for line in nodes.splitlines()) for name in ("alpha", "beta"))
    assert {node["hostname"] for node in json.loads(client("node", "list", "--json").stdout)} == {"alpha", "beta"}
    assert json.loads(client("task", "status", "--json", task_id).stdout)["task_id"] == task_id
    assert "placed" in client("task", "history", task_id).stdout.decode()


@on_processes
def test_nodes_are_drained_and_resumed_and_tasks_killed_and_waited_for(cluster: Cluster, client: Client) -> None:
    drained = client("node", "drain", "alpha", "--reason", "new disk")
    assert (drained.returncode, b"draining" in drained.stdout) == (0, True)
    task_id = client("task", "submit", "-t", "alpha", "--", "sleep", "600").stdout.decode().strip()
    assert b"draining (new disk)" in client("task", "status", task_id).stdout
    assert client("node", "resume", "alpha").returncode == 0
    cluster.wait_for(task_id, "running")
    assert client("task", "pause", task_id).returncode == 0
    cluster.wait_for(task_id, "paused")
    assert client("task", "resume", task_id).returncode == 0
    assert client("task", "kill", task_id).returncode == 0
    assert client("task", "wait", task_id).returncode != 0, "it did not end well"
    assert cluster.task(task_id)["status"] == "killed"


NOBODY = {"KOHAKURIVER_PORT": str(free_port())}


@on_processes
@pytest.mark.parametrize(
    ("words", "env", "code", "told"),
    [
        (("task", "status", "1"), {}, 3, "there is no task 1"),
        (("task", "submit"), {}, 2, "no command given"),
        (("task", "submit", "-m", "much", "--", "true"), {}, 2, "--memory"),
        (("task", "submit", "-t", "nowhere", "--", "true"), {}, 2, "nowhere"),
        (("task", "submit", "--privileged", "--", "true"), {}, 4, "privileged"),
        (("node", "delete", "alpha"), {}, 5, "online"),
        (("node", "status", "nowhere"), {}, 3, "nowhere"),
        (("task", "list"), NOBODY, 6, "no host at"),
        (("no-such-command",), {}, 2, "no-such-command"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code_that_means_it(
    client: Client, words: tuple[str, ...], env: dict[str, str], code: int, told: str
) -> None:
    said = client(*words, env=env)
    assert (said.returncode, said.stdout) == (code, b"")
    last = said.stderr.decode().strip().splitlines()[-1]
    assert told in last
    assert b"Traceback" not in said.stderr
