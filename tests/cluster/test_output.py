"""A command goes in, its output and exit code come out: byte for byte."""

import os

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.in_process import LOG_LIMIT_BYTES

EVERY_BYTE = bytes(range(256))
AS_PRINTF = "".join(f"\\{byte:03o}" for byte in EVERY_BYTE)


def test_a_commands_output_and_exit_code_come_back(cluster: Cluster) -> None:
    task = cluster.run("echo", "hello", "world")
    assert (task["status"], task["exit_code"], task["error_message"]) == ("completed", 0, None)
    assert cluster.output(task["task_id"]) == b"hello world\n"
    assert (task["stdout_bytes"], task["stderr_bytes"]) == (12, 0)
    assert task["started_at"] <= task["completed_at"]


def test_both_streams_come_back_apart_and_byte_for_byte_without_an_added_newline(cluster: Cluster) -> None:
    task = cluster.run_shell(f"printf '{AS_PRINTF}'; printf 'no newline' >&2; exit 7")
    assert (task["status"], task["exit_code"]) == ("failed", 7)
    assert cluster.output(task["task_id"]) == EVERY_BYTE
    assert cluster.output(task["task_id"], "stderr") == b"no newline"


def test_five_megabytes_come_back_whole(cluster: Cluster) -> None:
    task = cluster.run("head", "-c", "5000000", "/dev/zero")
    assert task["stdout_bytes"] == 5_000_000
    assert cluster.output(task["task_id"]) == bytes(5_000_000)


def test_too_much_output_is_cut_and_says_so_exactly_once(cluster: Cluster) -> None:
    task = cluster.run("head", "-c", str(LOG_LIMIT_BYTES + 2_000_000), "/dev/zero")
    kept = cluster.output(task["task_id"])
    assert task["status"] == "completed"
    assert kept[:LOG_LIMIT_BYTES] == bytes(LOG_LIMIT_BYTES)
    assert kept[LOG_LIMIT_BYTES:] == b"\n[kohakuriver: output cut here at %d bytes]\n" % LOG_LIMIT_BYTES


@pytest.mark.parametrize("node", ["alpha", "beta"])
def test_output_can_be_read_from_an_offset_and_by_its_last_lines(cluster: Cluster, node: str) -> None:
    task_id = cluster.run("printf", "one\ntwo\nthree", targets=[node])["task_id"]
    assert cluster.output(task_id, query="?offset=4") == b"two\nthree"
    assert cluster.output(task_id, query="?lines=2") == b"two\nthree"
    assert cluster.output(task_id, query="?lines=1") == b"three"
    assert cluster.output(task_id, query="?offset=13") == b""


ODD_ARGUMENTS = [
    *("two  spaces", " ", "", "'single'", '"double"', "$HOME", "${HOME}", "`id`", "$(id)", "a\nb\n", "\t", "*", "~"),
    *("back\\slash", "\\n", "%s", "--help", "-n", "--", ";", "|", "&&", ">", "äöü 日本 🦆", "\u202e", "!", "#", "{}"),
]


def test_arguments_reach_the_program_exactly_as_typed(cluster: Cluster) -> None:
    task = cluster.run("printf", "%s\\000", *ODD_ARGUMENTS)
    assert cluster.output(task["task_id"]) == b"".join(os.fsencode(each) + b"\0" for each in ODD_ARGUMENTS)


def test_an_argument_of_a_hundred_kilobytes_reaches_the_program(cluster: Cluster) -> None:
    long = "0123456789" * 10_000
    task = cluster.run("printf", "%s", long)
    assert cluster.output(task["task_id"]) == long.encode()


def test_a_script_sees_its_arguments_as_they_are(cluster: Cluster) -> None:
    task = cluster.run("sh", "-c", 'printf "%s|" "$@"', "sh", "a b", "", "$HOME")
    assert cluster.output(task["task_id"]) == b"a b||$HOME|"
