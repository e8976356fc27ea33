"""SFTP on a tree of files: what OpenSSH's own client does with it, and what hostile packets cannot."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.model.errors import NotFound
from kohakuriver.runner.sftp import MOST_HANDLES, Sftp, find_user
from kohakuriver.runner.sftp_packets import NotAPacket
from kohakuriver.system.rooted import Owner, Root

Client = Callable[..., subprocess.CompletedProcess[str]]


def serve(sftp: Sftp, end: socket.socket) -> None:
    with end:
        while data := end.recv(65536):
            sftp.take(data)
            while answers := sftp.answer_some():
                end.sendall(answers)
    sftp.close()


def contents_of(top: Path) -> dict[Path, str]:
    return {path.relative_to(top): path.read_text() for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "root").mkdir(parents=True)
    return top


@pytest.fixture
def client(tree: Path, tmp_path: Path) -> Client:
    """Stock `sftp` with a batch, spoken with over a socket in the place of ssh."""

    def run(*lines: str) -> subprocess.CompletedProcess[str]:
        ours, theirs = socket.socketpair()
        worker = threading.Thread(target=serve, args=(Sftp(Root.at(tree), "/root"), ours))
        worker.start()
        stand_in = tmp_path / "ssh"
        stand_in.write_text(
            "#!/usr/bin/env python3\nimport os, socket, threading\n"
            f"s = socket.socket(fileno={theirs.fileno()})\n"
            "def up():\n"
            "    while d := os.read(0, 65536): s.sendall(d)\n"
            "    s.shutdown(socket.SHUT_WR)\n"
            "threading.Thread(target=up, daemon=True).start()\n"
            "while d := s.recv(65536):\n"
            "    while d: d = d[os.write(1, d):]\n"
        )
        stand_in.chmod(0o755)
        with theirs:
            done = subprocess.run(
                ["sftp", "-S", stand_in, "-b", "-", "x"],
                input="\n".join(lines),
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


def test_files_and_directories_come_and_go(client: Client, tree: Path, tmp_path: Path) -> None:
    content = os.urandom(700_001)
    (tmp_path / "up").write_bytes(content)
    done = client("pwd", "put up", "mkdir d", "rename up d/moved", "chmod 600 d/moved", "ln -s moved d/link", "ls -l d")
    assert done.returncode == 0, done
    assert "Remote working directory: /root" in done.stdout and "link" in done.stdout
    moved = tree / "root/d/moved"
    assert moved.read_bytes() == content and moved.stat().st_mode & 0o777 == 0o600
    assert client("get d/link down", "rm d/link", "rm d/moved", "rmdir d").returncode == 0
    assert (tmp_path / "down").read_bytes() == content and list((tree / "root").iterdir()) == []


def test_a_whole_tree_goes_up_and_down(client: Client, tree: Path, tmp_path: Path) -> None:
    for number in range(250):  # more than one answer holds
        path = tmp_path / "many" / str(number % 3) / f"file {number} é"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    assert client("put -pR many").returncode == 0
    assert client("get -R many back").returncode == 0
    there, back = contents_of(tmp_path / "many"), contents_of(tmp_path / "back")
    assert len(there) == 250 and there == back


@pytest.mark.parametrize("line", ["get nothing", "rm nothing", "cd nothing", "mkdir no/where", "ls nothing"])
def test_what_is_not_there_is_told(client: Client, line: str) -> None:
    done = client(line)
    assert done.returncode != 0 and "o such file" in done.stderr + done.stdout or "not found" in done.stderr


def test_nothing_leads_out_of_the_tree(client: Client, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tree / "out").symlink_to(tmp_path / "secret")
    (tree / "up").symlink_to("../../..")
    for line in (
        "get /out",
        "get /../secret",
        f"get /up{tmp_path}/secret",
        "get /proc/self/environ",
        "put secret /out",
    ):
        assert client(line).returncode != 0, line
    assert (tmp_path / "secret").read_text() == "secret" and not (tmp_path / "out").exists()


def packet(kind: int, number: int, *parts: bytes) -> bytes:
    body = bytes([kind]) + number.to_bytes(4, "big") + b"".join(parts)
    return len(body).to_bytes(4, "big") + body


def string(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


def test_an_open_file_of_the_server_cannot_be_named(tree: Path) -> None:
    victim = tree.parent / "victim"
    victim.write_text("as it was")
    with victim.open("r+b") as held:
        sftp = Sftp(Root.at(tree), "/root")
        cut_to_nothing = (1).to_bytes(4, "big") + bytes(8)
        for path in (f"/proc/self/fd/{held.fileno()}", f"/../../proc/self/fd/{held.fileno()}"):
            sftp.take(packet(9, 1, string(path.encode()), cut_to_nothing))
            assert sftp.answer_some()[4] == 101
        sftp.close()
    assert victim.read_text() == "as it was"


def test_only_so_many_files_are_open_at_once(tree: Path) -> None:
    (tree / "file").write_text("x")
    sftp = Sftp(Root.at(tree), "/")
    before = len(os.listdir("/proc/self/fd"))
    ask = packet(3, 1, string(b"/file"), (1).to_bytes(4, "big"), bytes(4))
    sftp.take(ask * (MOST_HANDLES + 5))
    answers = sftp.answer_some()
    assert answers.count(b"too many files are open") == 5
    sftp.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_many_large_reads_at_once_are_answered_bit_by_bit(tree: Path) -> None:
    (tree / "file").write_bytes(bytes(300_000))
    sftp = Sftp(Root.at(tree), "/")
    sftp.take(packet(3, 1, string(b"/file"), (1).to_bytes(4, "big"), bytes(4)))
    handle = sftp.answer_some()[9:]
    sftp.take(packet(5, 2, handle, bytes(8), (2**32 - 1).to_bytes(4, "big")) * 1000)
    sizes = []
    while answers := sftp.answer_some():
        sizes.append(len(answers))
    assert max(sizes) < 1 << 20 and sum(sizes) > 250_000_000
    sftp.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=10), st.binary(max_size=20))
def test_garbage_is_answered_or_refused(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, bytes]], tail: bytes
) -> None:
    top = tmp_path_factory.mktemp("garbage")
    sftp = Sftp(Root.at(top), "/")
    try:
        sftp.take(b"".join(packet(kind, 7, body) for kind, body in parts) + tail)
        while sftp.answer_some():
            pass
    except NotAPacket:
        pass
    finally:
        sftp.close()
        shutil.rmtree(top)


def test_people_are_those_whom_the_workload_knows(tree: Path) -> None:
    with Root.at(tree) as root:
        assert find_user(root, "root").home == "/root"
        (tree / "etc").mkdir()
        (tree / "etc/passwd").write_text("broken\nada:x:1000:1001::/home/ada:/bin/sh\n")
        assert find_user(root, "ada").owner == Owner(1000, 1001)
        with pytest.raises(NotFound, match="no user bob"):
            find_user(root, "bob")
