"""An image for a throw-away cluster: one that the Docker daemon has, busybox from this machine, or a short pull."""

import io
import os
import socket
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from kohakuriver.model.errors import EngineFailed

if TYPE_CHECKING:
    import docker

OWN = "kohakuriver/busybox:base"
WITH_A_SHELL = ("debian", "ubuntu", "alpine", "busybox", "python", "fedora", "rockylinux", "almalinux")
BUSYBOX_PLACES = (Path("/usr/bin/busybox"), Path("/bin/busybox"))
ANSWER_SECONDS, PULL_SECONDS = 15.0, 60.0
_PT_INTERP = 3


def usable_image(docker_socket: str, wanted: str, tell: Callable[[str], None]) -> str:
    """An image with a shell on the daemon; made when there is none, which `tell` hears of.

    Raises EngineFailed when no daemon answers, or no image can be had.
    """
    _probe(docker_socket)
    from docker.errors import DockerException  # only now, because it takes a while

    from kohakuriver.system.docker_sdk import connect

    try:
        api = connect(docker_socket, ANSWER_SECONDS)
    except (DockerException, OSError) as why:
        raise EngineFailed(f"no Docker daemon answers on {docker_socket} ({why})") from None
    try:
        there = {tag for image in api.images() for tag in image.get("RepoTags") or ()}
        chosen = choose(there, wanted)
        if chosen is None and (busybox := static_busybox(BUSYBOX_PLACES)):
            api.import_image_from_data(
                image_archive(busybox), repository=OWN.partition(":")[0], tag=OWN.partition(":")[2]
            )
            return OWN
        return chosen or _pull(api, wanted, tell)
    except (DockerException, OSError) as why:  # what the SDK raises for a broken connection is an OSError
        raise EngineFailed(f"the Docker daemon has no image to run tasks in ({_in_short(why)})") from None
    finally:
        api.close()


def _probe(docker_socket: str) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(docker_socket)
        except OSError as why:
            raise EngineFailed(f"no Docker daemon answers on {docker_socket} ({why.strerror or why})") from None


def choose(there: Collection[str], wanted: str) -> str | None:
    """The wanted image, else one known to hold a shell, else the one that we made before; None when none is there."""
    if wanted in there:
        return wanted
    known = sorted(tag for tag in there if tag.partition(":")[0].rpartition("/")[2] in WITH_A_SHELL and tag != OWN)
    return known[0] if known else OWN if OWN in there else None


def static_busybox(places: Collection[Path]) -> Path | None:
    """The first busybox that needs no libraries, None when there is none."""
    return next((place for place in places if place.is_file() and is_static(place.read_bytes())), None)


def is_static(program: bytes) -> bool:
    """Whether an executable asks for no interpreter (64-bit ELF, System V ABI: no PT_INTERP segment)."""
    if program[:5] != b"\x7fELF\x02" or len(program) < 64:
        return False
    (start,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    return all(struct.unpack_from("<I", program, start + size * n)[0] != _PT_INTERP for n in range(count))


def image_archive(busybox: Path) -> bytes:
    """A root file system with busybox and a link for each of its commands, as a tar archive."""
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for folder, mode in {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777}.items():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        archive.add(busybox, "bin/busybox", filter=_roots)
        for name in set(listed.stdout.split()) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{os.path.basename(name)}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        users = b"root:x:0:0:root:/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(users)
        archive.addfile(entry, io.BytesIO(users))
    return made.getvalue()


def _roots(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid, entry.gid, entry.uname, entry.gname, entry.mode = 0, 0, "root", "root", 0o755
    return entry


def _in_short(why: Exception) -> str:
    return str(getattr(why, "explanation", None) or why).split("\n")[0][:200]


def _pull(api: "docker.APIClient", wanted: str, tell: Callable[[str], None]) -> str:
    tell(f"pulling {wanted}, because the Docker daemon has no image yet")
    name, _, tag = wanted.partition(":")
    give_up = time.monotonic() + PULL_SECONDS
    for line in api.pull(name, tag or "latest", stream=True, decode=True):
        if "error" in line:
            raise EngineFailed(f"no image can be had: {line['error']}")
        if time.monotonic() > give_up:
            raise EngineFailed(f"{wanted} did not arrive in {PULL_SECONDS:.0f} seconds")
    return wanted
