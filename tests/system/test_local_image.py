"""The image of a throw-away cluster: what is there is used, and busybox of this machine makes one without a network."""

import io
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system import local_image
from kohakuriver.system.local_image import OWN, choose, image_archive, is_static, static_busybox, usable_image
from tests.docker_daemon import IMAGE, Daemon, docker_daemon, import_image

__all__ = ["docker_daemon"]
ABSENT = "debian:12-slim"


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ((ABSENT, "alpine:3", OWN), ABSENT),
        (("my/app:1", "ubuntu:24.04", "library/alpine:3", OWN), "library/alpine:3"),
        (("my/app:1", OWN), OWN),
        (("my/app:1", "debian-tools:1"), None),
        ((), None),
    ],
)
def test_an_image_with_a_shell_that_is_there_is_taken(there: tuple[str, ...], chosen: str | None) -> None:
    assert choose(there, ABSENT) == chosen


def elf(*segments: int) -> bytes:
    head = struct.pack("<4sB11xHHIQQQIHHH6x", b"\x7fELF", 2, 2, 62, 1, 0, 64, 0, 0, 64, 56, len(segments))
    return head + b"".join(struct.pack("<I52x", kind) for kind in segments)


def test_a_program_is_static_when_it_asks_for_no_interpreter() -> None:
    assert is_static(elf(1, 1, 6))
    assert not is_static(elf(6, 3, 1))
    assert not is_static(b"#!/bin/sh\n")
    assert not is_static(b"\x7fELF\x01" + bytes(100))


def test_busybox_counts_only_where_it_is_and_static(tmp_path: Path) -> None:
    (tmp_path / "dynamic").write_bytes(elf(3))
    (tmp_path / "static").write_bytes(elf(1))
    assert static_busybox([tmp_path / "no", tmp_path / "dynamic", tmp_path / "static"]) == tmp_path / "static"
    assert static_busybox([tmp_path / "no", tmp_path / "dynamic"]) is None


def test_the_archive_holds_busybox_under_every_name_and_belongs_to_root(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_text(f"#!{sys.executable}\nprint('sh\\necho\\nbusybox')\n")
    busybox.chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(image_archive(busybox))) as archive:
        entries = {entry.name: entry for entry in archive}
    assert {name: entries[name].linkname for name in ("bin/sh", "bin/echo")} == {
        "bin/sh": "busybox",
        "bin/echo": "busybox",
    }
    assert entries["bin/busybox"].isreg() and entries["bin/busybox"].mode == 0o755
    assert entries["tmp"].mode == 0o1777
    assert {entry.uid for entry in entries.values()} == {0}


def test_a_daemon_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=f"no Docker daemon answers on {tmp_path}/s"):
        usable_image(f"{tmp_path}/s", ABSENT, print)


@pytest.fixture
def empty_daemon(docker_daemon: Daemon) -> Iterator[Daemon]:
    """A daemon without images; the one that other tests count on is put back."""
    for image in docker_daemon.request("GET", "/images/json"):
        docker_daemon.request("DELETE", f"/images/{image['Id']}", query={"force": "1"})
    yield docker_daemon
    import_image(docker_daemon, IMAGE)


@pytest.mark.docker
def test_an_empty_daemon_gets_an_image_without_a_network(empty_daemon: Daemon) -> None:
    assert usable_image(empty_daemon.socket, ABSENT, pytest.fail) == OWN
    ran = empty_daemon.cli("run", "--rm", "--network", "none", OWN, "sh", "-c", "echo $((6 * 7)); id -un")
    assert (ran.stdout, ran.returncode) == ("42\nroot\n", 0)
    assert usable_image(empty_daemon.socket, ABSENT, pytest.fail) == OWN


@pytest.mark.docker
def test_a_pull_that_cannot_be_is_an_error_that_says_so(empty_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_image, "BUSYBOX_PLACES", ())
    told: list[str] = []
    with pytest.raises(EngineFailed, match="image"):
        usable_image(empty_daemon.socket, "127.0.0.1:9/nobody/there:1", told.append)
    assert told == ["pulling 127.0.0.1:9/nobody/there:1, because the Docker daemon has no image yet"]
