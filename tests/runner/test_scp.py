"""The old protocol of scp on a tree of files: what OpenSSH's own client does with it, and what hostile words cannot."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.runner import scp
from kohakuriver.runner.scp import Asked, Scp, parse
from kohakuriver.system.rooted import Root

Client = Callable[..., subprocess.CompletedProcess[str]]
STAND_IN = """#!/usr/bin/env python3
import os, socket, sys, threading
s = socket.socket(fileno={descriptor})
s.sendall(sys.argv[-1].encode() + b"\\0")
def up():
    while d := os.read(0, 65536): s.sendall(d)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
code = b"1"
while d := s.recv(65536):
    d, end, code = d.partition(b"CODE=") if b"CODE=" in d else (d, b"", b"")
    while d: d = d[os.write(1, d):]
    if end: break
os._exit(int(code or 1))
"""


def serve(tree: Path, end: socket.socket) -> None:
    """Speak with one client; the first word is its command."""
    with end:
        command = b""
        while not command.endswith(b"\0"):
            command += end.recv(1)
        asked = parse(command[:-1].decode())
        assert asked is not None, command
        copying = Scp(Root.at(tree), "/root", asked)
        while True:
            while said := copying.answer_some():
                end.sendall(said)
            if copying.code is not None:
                break
            copying.take(end.recv(65536))
        copying.close()
        end.sendall(b"CODE=%d" % copying.code)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "root").mkdir(parents=True)
    return top


@pytest.fixture
def client(tree: Path, tmp_path: Path) -> Client:
    """Stock `scp -O`, spoken with over a socket in the place of ssh."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        ours, theirs = socket.socketpair()
        worker = threading.Thread(target=serve, args=(tree, ours))
        worker.start()
        stand_in = tmp_path / "ssh"
        stand_in.write_text(STAND_IN.format(descriptor=theirs.fileno()))
        stand_in.chmod(0o755)
        with theirs:
            command = ["scp", "-O", "-S", str(stand_in), *words]
            done = subprocess.run(
                command,
                text=True,
                capture_output=True,
                pass_fds=[theirs.fileno()],
                cwd=tmp_path,
                timeout=60,
                check=False,
            )
        worker.join(60)
        return done

    return run


def contents_of(top: Path) -> dict[Path, bytes]:
    return {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_a_file_goes_up_and_comes_down(client: Client, tree: Path, tmp_path: Path) -> None:
    content = os.urandom(1_700_001)
    (tmp_path / "up").write_bytes(content)
    assert client("up", "x:").returncode == 0
    assert (tree / "root/up").read_bytes() == content
    assert client("up", "x:~/other").returncode == 0 and (tree / "root/other").read_bytes() == content
    assert client("x:up", "down").returncode == 0
    assert (tmp_path / "down").read_bytes() == content


def test_a_shorter_file_takes_the_place_of_a_longer_one(client: Client, tree: Path, tmp_path: Path) -> None:
    (tree / "root/file").write_text("long before")
    (tmp_path / "file").write_text("now")
    assert client("file", "x:").returncode == 0
    assert (tree / "root/file").read_text() == "now"


def test_a_whole_tree_goes_up_and_down_with_modes_and_times(client: Client, tree: Path, tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / "many" / str(number % 3) / f"file {number} é"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        path.chmod(0o640)
    (tmp_path / "many/empty").mkdir()
    assert client("-rp", "many", "x:").returncode == 0
    assert client("-rp", "x:many", "back").returncode == 0
    assert len(contents_of(tree / "root/many")) == 30
    assert contents_of(tmp_path / "back") == contents_of(tmp_path / "many") and (tmp_path / "back/empty").is_dir()
    status = (tmp_path / "back/1/file 1 é").stat()
    assert (status.st_mode & 0o777, int(status.st_mtime)) == (0o640, 1_000_000_001)


def test_wildcards_mean_what_they_do_in_a_shell(client: Client, tree: Path, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", ".c.txt", "d.log"):
        (tree / "root" / name).write_text(name)
    (tmp_path / "got").mkdir()
    assert client("x:*.txt", "got").returncode == 0
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x:nothing", "down"), "o such file"),
        (("x:/root", "down"), "not a regular file"),
        (("here", "x:/no/where/"), "o such file"),
        (("here", "x:/proc/x"), "not files of the workload"),
        (("-r", "x:/proc/self", "down"), "not files of the workload"),
        (("x:out", "down"), "o such file"),
    ],
)
def test_what_cannot_be_is_told(client: Client, tree: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "here").write_text("here")
    (tmp_path / "secret").write_text("secret")
    (tree / "proc/self").mkdir(parents=True)
    (tree / "root/out").symlink_to(tmp_path / "secret")
    done = client(*words)
    assert done.returncode == 1 and said in done.stderr, done
    assert not (tmp_path / "down").exists()


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("scp -t .", Asked(False, False, False, False, (".",))),
        ("scp -v -r -p -d -t -- '/a b'", Asked(False, True, True, True, ("/a b",))),
        ("scp -rpf a b", Asked(True, True, True, False, ("a", "b"))),
        ("scp a b", None),
        ("scp -t", None),
        ("scp -t a b", None),
        ("scp -t a; rm -r /", None),
        ("scp -f a; echo b", None),
        ("scp -f $HOME/a", None),
        ("scp -S x -f a", None),
        ("scp 'x", None),
        ("rsync --server", None),
        ("", None),
    ],
)
def test_only_what_scp_itself_says_is_taken_for_it(command: str, asked: Asked | None) -> None:
    assert parse(command) == asked


@given(
    st.booleans(),
    st.lists(
        st.one_of(
            st.sampled_from(
                [b"\0", b"\1x\n", b"\2x\n", b"C0644 3 a\n", b"C0644 3 ..\n", b"C0644 3 a/b\n", b"D0755 0 d\n", b"E\n"]
                + [b"T1 0 1 0\n", b"C0644 999999999999999999 a\n", b"abc"]
            ),
            st.binary(max_size=20),
        ),
        max_size=12,
    ),
)
def test_nothing_that_is_said_leads_out_or_fails(is_source: bool, words: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / "top"
        (top / "root").mkdir(parents=True)
        (top / "root/a").write_text("content")
        copying = Scp(Root.at(top), "/root", Asked(is_source, True, True, False, (".",)))
        for word in (*words, b""):
            while copying.answer_some():
                pass
            copying.take(word)
        while copying.answer_some():
            pass
        assert copying.code is not None, "with the end of what is said it is over"
        copying.close()
        assert os.listdir(folder) == ["top"]


def test_an_scp_of_the_workload_is_found(tree: Path) -> None:
    with Root.at(tree) as root:
        assert not scp.is_there(root)
        (tree / "usr/bin").mkdir(parents=True)
        shutil.copy("/bin/true", tree / "usr/bin/scp")
        assert scp.is_there(root)
