"""Whole trees as tars: what goes in comes out again, and a tar that would lead out is refused."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kohakuriver.model.errors import BadRequest, Conflict, RiverError
from kohakuriver.system.rooted import Owner, Root
from kohakuriver.system.rooted_tree import Stopped
from kohakuriver.system.tar_reader import MAX_HEADER_BYTES, Read
from kohakuriver.system.tree_archive import Tally, leads_out, pack, unpack


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    with Root.at(tmp_path / "root", Owner(os.getuid(), os.getgid())) as opened:
        yield opened


def reader(data: bytes) -> Read:
    stream = io.BytesIO(data)
    return stream.read


def unpacked(root: Root, data: bytes, path: str = "/to") -> Tally:
    tally = Tally()
    unpack(root, path, reader(data), tally)
    return tally


def tar(*members: tarfile.TarInfo, content: bytes = b"data", form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            made.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def inside(data: bytes) -> dict[str, int]:
    """The names in a tar, and the sizes."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as made:
        return {each.name: each.size for each in made}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def tree_of(top: Path) -> dict[str, object]:
    """What is below a directory: the mode and the content of files, where links lead, and which are directories."""
    found: dict[str, object] = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) if path.is_file() else "directory"
    return found


def test_a_tree_comes_back_as_it_went(root: Root, tmp_path: Path) -> None:
    top = tmp_path / "root/from"
    for name in ("empty", "deep/" + "x" * 200 + "/" + "y" * 200, "ünï"):
        (top / name).mkdir(parents=True)
    (top / "big").write_bytes(os.urandom(3_000_001))
    (top / "deep/script").write_bytes(b"#!/bin/sh\n")
    (top / "deep/script").chmod(0o755)
    (top / os.fsdecode(b"\xff\xfe")).write_bytes(b"no text")
    (top / "nothing").touch()
    (top / "link").symlink_to("deep/script")
    (top / "up").symlink_to("deep/../nothing")
    os.link(top / "nothing", top / "twin")
    os.mkfifo(top / "pipe")
    data = b"".join(pack(root, "/from"))
    names = inside(data)
    assert "big" in names and "pipe" not in names
    tally = unpacked(root, data)
    (top / "pipe").unlink()
    assert tree_of(tmp_path / "root/to") == tree_of(top)
    assert tally == Tally(entries=len(names), bytes=3_000_001 + 10 + 7)
    assert (tmp_path / "root/to/big").stat().st_mtime == pytest.approx((top / "big").stat().st_mtime, abs=0.001)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_others_are_understood(root: Root, tmp_path: Path, form: int) -> None:
    long = "/".join(["directory" * 8] * (2 if form == tarfile.USTAR_FORMAT else 4)) + "/file"
    data = tar(member("./"), member("./a"), member(long), member("b", tarfile.LNKTYPE, "a"), form=form)
    assert unpacked(root, data).entries == 3
    assert (tmp_path / "root/to" / long).read_bytes() == (tmp_path / "root/to/b").read_bytes() == b"data"


@pytest.mark.parametrize(
    "hostile",
    [
        member("/etc/passwd"),
        member("../outside/x"),
        member("a/../../outside/x"),
        member("link", tarfile.SYMTYPE, "/etc/shadow"),
        member("link", tarfile.SYMTYPE, "../../outside"),
        member("a/link", tarfile.SYMTYPE, "b/../../.."),
        member("link", tarfile.LNKTYPE, "../../etc/shadow"),
        member("link", tarfile.LNKTYPE, "/etc/shadow"),
        member("device", tarfile.CHRTYPE),
        member("device", tarfile.BLKTYPE),
        member("pipe", tarfile.FIFOTYPE),
        member("sparse", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda info: f"{info.name} {info.linkname}",
)
def test_a_member_that_leads_out_is_refused(root: Root, tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    with pytest.raises(BadRequest, match="^body: "):
        unpacked(root, tar(member("first"), hostile, member("never")))
    assert sorted(os.listdir(tmp_path / "root/to")) == ["first"] and os.listdir(tmp_path / "outside") == []


def test_a_member_below_a_link_that_leads_out_is_refused(root: Root, tmp_path: Path) -> None:
    """Also when the link was there before, or comes of links that are harmless each."""
    (tmp_path / "root/to").mkdir()
    (tmp_path / "root/other").mkdir()
    (tmp_path / "root/to/out").symlink_to("../other")
    (tmp_path / "root/to/abs").symlink_to("/other")
    (tmp_path / "root/to/deep/er").mkdir(parents=True)
    two = member("a", tarfile.SYMTYPE, "deep/er"), member("b", tarfile.SYMTYPE, "a/../../..")
    for data in (tar(member("out/x")), tar(member("abs/x")), tar(*two, member("b/x"))):
        with pytest.raises((Conflict, BadRequest)):
            unpacked(root, data)
    assert os.listdir(tmp_path / "root/other") == []
    unpacked(root, tar(member("in", tarfile.SYMTYPE, "deep/er"), member("in/x")))
    assert (tmp_path / "root/to/deep/er/x").read_bytes() == b"data"


def test_what_is_in_the_way_is_replaced_but_never_written_through(root: Root, tmp_path: Path) -> None:
    to = tmp_path / "root/to"
    to.mkdir()
    (tmp_path / "root/other").write_bytes(b"untouched")
    (to / "file").symlink_to("../other")
    (to / "twin").write_bytes(b"untouched")
    os.link(to / "twin", to / "hard")
    (to / "full").mkdir()
    (to / "full/x").touch()
    unpacked(root, tar(member("file"), member("hard"), member("twin", tarfile.SYMTYPE, "hard")))
    assert (tmp_path / "root/other").read_bytes() == b"untouched" and not (to / "file").is_symlink()
    assert os.readlink(to / "twin") == "hard" and (to / "hard").read_bytes() == b"data"
    with pytest.raises(Conflict):
        unpacked(root, tar(member("full")))


def test_nobody_becomes_another_by_a_tar(root: Root, tmp_path: Path) -> None:
    strange = member("file")
    strange.mode, strange.uid, strange.gid = 0o6777, 4711, 4711
    unpacked(root, tar(strange))
    status = (tmp_path / "root/to/file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o777, os.getuid())


def test_the_kernels_directories_do_not_travel(root: Root, tmp_path: Path) -> None:
    for name in ("proc", "sys", "dev", "kept", "kept/dev"):
        (tmp_path / "root" / name).mkdir()
        (tmp_path / "root" / name / "x").touch()
    assert inside(b"".join(pack(root, "/"))).keys() == {"kept", "kept/dev", "kept/dev/x", "kept/x"}
    with pytest.raises(RiverError):
        unpacked(root, tar(member("proc/x")), "/")


def test_a_file_that_changes_while_it_is_packed_keeps_the_tar_whole(root: Root, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "root" / name).write_bytes(b"x" * 5_000_000)
    pieces = pack(root, "/")
    data = next(pieces)
    for name in "ab":
        os.truncate(tmp_path / "root" / name, 10)
    data += b"".join(pieces)
    assert list(inside(data).values()) in ([5_000_000, 10], [5_000_000] * 2)
    with pytest.raises(Stopped):
        list(pack(root, "/", stop=lambda: True))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_refused_before_it_comes(root: Root, kind: bytes) -> None:
    bomb = member("bomb", kind)
    bomb.size = 2**40
    asked = []

    def read(count: int) -> bytes:
        asked.append(count)
        return bomb.tobuf(tarfile.GNU_FORMAT) if len(asked) == 1 else bytes(count)

    with pytest.raises(BadRequest, match="header"):
        unpack(root, "/to", read, Tally())
    assert max(asked) <= MAX_HEADER_BYTES


def test_every_tar_that_is_cut_off_is_an_error(root: Root) -> None:
    whole = tar(member("a"), member("x/" * 150 + "x"), content=b"y" * 1000)
    end = whole.rstrip(b"\0")
    for length in range(0, len(end), 97):
        with pytest.raises(BadRequest, match="cut off|not a tar"):
            unpacked(root, whole[:length])


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(noise=st.lists(st.tuples(st.integers(0, 2047), st.binary(min_size=1, max_size=8)), max_size=6))
def test_garbage_is_refused_in_words_or_unpacked_inside(
    root: Root, tmp_path: Path, noise: list[tuple[int, bytes]]
) -> None:
    data = bytearray(tar(member("a" * 150), member("b", tarfile.SYMTYPE, "c")))
    for at, replacement in noise:
        data[at : at + len(replacement)] = replacement
    try:
        unpacked(root, bytes(data))
    except RiverError:
        pass
    assert sorted(os.listdir(tmp_path / "root")) in ([], ["to"]) and os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize(
    ("name", "target", "wanted"),
    [
        ("a", "b", False),
        ("a", "/b", True),
        ("a", "..", True),
        ("a/b", "..", False),
        ("a/b", "../..", True),
        ("a/b", "../c/../..", True),
        ("a/b/c", "../../d", False),
        ("a", "b/../../c", True),
        ("a", "", True),
    ],
)
def test_a_link_is_read_as_it_is_written(name: str, target: str, wanted: bool) -> None:
    assert leads_out(name, target) is wanted
