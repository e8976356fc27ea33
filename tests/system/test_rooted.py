"""Files below a root: nothing that stands in it leads out, whatever it is and whenever it was put there."""

import errno
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kohakuriver.model.errors import BadRequest, Conflict, NotAllowed, NotFound
from kohakuriver.system.rooted import MAX_PATH_BYTES, Owner, Root, kind_of
from kohakuriver.system.rooted_tree import MAX_DEPTH, Stopped
from kohakuriver.system.rooted_writing import Writing

Use = Callable[[], object]
SECRET = b"what only the machine may know"
PROMISED_SECONDS = 60.0


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the machine beside the root, with a secret in it."""
    made = tmp_path / "outside"
    made.mkdir()
    (made / "secret").write_bytes(SECRET)
    return made


@pytest.fixture
def inside(tmp_path: Path, outside: Path) -> Path:
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc/shadow").write_bytes(b"of the workload")
    return made


@pytest.fixture
def root(inside: Path) -> Iterator[Root]:
    before = len(os.listdir("/proc/self/fd"))
    with Root.at(inside, Owner(os.getuid(), os.getgid())) as opened:
        yield opened
    assert len(os.listdir("/proc/self/fd")) == before, "every descriptor is closed again"


def content(root: Root, path: str) -> bytes:
    opened = root.open_file(path)
    try:
        return os.read(opened, 1_000_000)
    finally:
        os.close(opened)


def write(root: Root, path: str, data: bytes, mode: int | None = None) -> None:
    writing = Writing.begin(root, path, mode)
    writing.write(data)
    writing.finish()


@pytest.mark.parametrize(
    "target",
    ["/etc/shadow", "../../../../../etc/shadow", "/../etc/shadow", "../etc/./../etc/shadow", "/etc/../../etc/shadow"],
)
def test_a_link_to_a_file_of_the_machine_leads_to_the_one_of_the_root(root: Root, inside: Path, target: str) -> None:
    (inside / "etc/link").symlink_to(target)
    assert content(root, "/etc/link") == content(root, target) == b"of the workload"
    assert root.real_path("/etc/link") == "/etc/shadow"


def test_a_link_to_a_directory_of_the_machine_leads_nowhere(root: Root, inside: Path, outside: Path) -> None:
    (inside / "out").symlink_to(outside)
    for use in (
        lambda: content(root, "/out/secret"),
        lambda: root.list("/out"),
        lambda: root.stat("/out/secret"),
        lambda: write(root, "/out/new", b""),
        lambda: root.make_directory("/out/new"),
        lambda: root.delete("/out/secret"),
        lambda: root.rename("/etc/shadow", "/out/shadow"),
        lambda: root.rename("/out/secret", "/etc/secret"),
        lambda: root.change("/out/secret", mode=0o777),
        lambda: content(root, f"{outside}/secret"),
    ):
        with pytest.raises(NotFound):
            use()
    assert os.listdir(outside) == ["secret"] and (outside / "secret").read_bytes() == SECRET


def test_the_links_of_proc_lead_nowhere(inside: Path) -> None:
    with Root.of_process(os.getpid()) as whole:
        for path in ("/proc/self/root/etc/passwd", "/proc/self/cwd", "/proc/version", "/sys/kernel", "/dev/null"):
            with pytest.raises((NotAllowed, Conflict, NotFound)):
                whole.stat(path)
        (inside / "out").symlink_to("/proc/version")
        with pytest.raises(NotAllowed, match="not files of the workload"):
            whole.stat(str(inside / "out"))


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_what_is_the_kernels_is_refused_by_where_it_is(root: Root, inside: Path, name: str) -> None:
    (inside / name).mkdir()
    (inside / name / "x").write_bytes(b"")
    (inside / "etc/link").symlink_to(f"/{name}/")
    for path in (f"/{name}/x", f"//{name}//x", f"/etc/../{name}/x", "/etc/link/x", f"../{name}/x"):
        with pytest.raises(NotAllowed):
            content(root, path)
        with pytest.raises(NotAllowed):
            root.delete(path)
        with pytest.raises(NotAllowed):
            write(root, path, b"")
    uses: tuple[Use, ...] = (lambda: root.list(f"/{name}"), lambda: root.delete(f"/{name}", recursive=True))
    for use in uses:
        with pytest.raises(NotAllowed):
            use()
    with pytest.raises(NotAllowed):
        root.rename(f"/{name}", "/other")
    assert [entry.name for entry in root.list("/").entries] == sorted(["etc", name]), "that it is there is no secret"


def test_a_file_system_of_the_kernel_is_refused_wherever_it_is_mounted(inside: Path) -> None:
    """In a mount namespace that goes away with its process."""
    (inside / "harmless").mkdir()
    (inside / "data").mkdir()
    (inside / "hosts").touch()
    mounts = f"mount -t proc none {inside}/harmless && mount -t tmpfs none {inside}/data"
    script = f"{mounts} && mount --bind {inside}/etc/shadow {inside}/hosts && echo ready && exec sleep 1000"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"ready\n"
            with Root.of_process(process.pid) as theirs:
                use_mounts(theirs, inside)
        finally:
            process.kill()


def use_mounts(theirs: Root, inside: Path) -> None:
    for path in (f"{inside}/harmless", f"{inside}/harmless/sys"):
        with pytest.raises(NotAllowed):
            theirs.list(path)
    with pytest.raises(NotAllowed):
        content(theirs, f"{inside}/harmless/version")
    write(theirs, f"{inside}/data/x", b"on a mount of theirs")
    assert content(theirs, f"{inside}/data/x") == b"on a mount of theirs"
    assert not list((inside / "data").iterdir()), "it is not to be seen from here"
    uses: tuple[Use, ...] = (
        lambda: theirs.delete(f"{inside}/data", recursive=True),
        lambda: theirs.delete(str(inside), recursive=True),
        lambda: theirs.delete(f"{inside}/hosts"),
        lambda: theirs.rename(f"{inside}/data", f"{inside}/moved"),
        lambda: theirs.rename(f"{inside}/etc/shadow", f"{inside}/hosts", replace=True),
        lambda: write(theirs, f"{inside}/hosts", b"new"),
    )
    for use in uses:
        with pytest.raises(Conflict, match="mounted"):
            use()


def test_a_path_that_is_swapped_while_it_is_used_never_leads_out(root: Root, inside: Path, outside: Path) -> None:
    (inside / "work/deep").mkdir(parents=True)
    (inside / "work/deep/secret").write_bytes(b"harmless")
    (inside / "evil").symlink_to("../" * 20 + str(outside))
    (outside / "deep").mkdir()
    (outside / "deep/secret").write_bytes(SECRET)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(inside / "work", inside / "kept")
            os.rename(inside / "evil", inside / "work")
            os.rename(inside / "work", inside / "evil")
            os.rename(inside / "kept", inside / "work")

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen, turn, deadline = set[bytes](), 0, time.monotonic() + PROMISED_SECONDS
    try:
        while turn < 2000 or (not seen and time.monotonic() < deadline):
            turn += 1
            try:
                seen.add(content(root, "/work/deep/../deep/secret"))
                write(root, f"/work/deep/new{turn % 5}", b"x")
                root.delete(f"/work/deep/new{turn % 5}")
            except (NotFound, Conflict):
                continue
    finally:
        done.set()
        swapping.join()
    assert seen == {b"harmless"}
    assert sorted(os.listdir(outside)) == ["deep", "secret"] and os.listdir(outside / "deep") == ["secret"]


def test_a_tree_whose_directories_become_links_is_taken_away_without_following_them(
    root: Root, inside: Path, outside: Path
) -> None:
    """Directories turn into links to the outside while the tree that holds them is taken away."""
    (outside / "kept").write_bytes(SECRET)
    for number in range(300):
        (inside / f"tree/{number}").mkdir(parents=True)
        (inside / f"tree/{number}/file").write_bytes(b"")

    def turn() -> bool:
        for number in range(0, 300, 7):
            at = inside / f"tree/{number}"
            try:
                os.rename(at, inside / f"was{number}")
                at.symlink_to(outside)
            except OSError:
                continue
        return False

    root.delete("/tree", recursive=True, stop=turn)
    assert not (inside / "tree").exists() and sorted(os.listdir(outside)) == ["kept", "secret"]


def test_pipes_sockets_and_devices_are_looked_at_and_never_opened(root: Root, inside: Path) -> None:
    os.mkfifo(inside / "pipe")
    os.mknod(inside / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(inside / "socket"))
    finished = threading.Event()

    def use() -> None:
        for name in ("pipe", "device", "socket"):
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT):
                with pytest.raises(Conflict, match=f"a {name}, not a file"):
                    root.open_file(f"/{name}", flags)
            with pytest.raises(Conflict):
                write(root, f"/{name}", b"")
        finished.set()

    threading.Thread(target=use, daemon=True).start()
    assert finished.wait(PROMISED_SECONDS)
    kinds = {entry.name: kind_of(entry.status.st_mode) for entry in root.list("/").entries}
    assert kinds == {"device": "device", "etc": "directory", "pipe": "pipe", "socket": "socket"}


def test_hard_links_are_files_like_others(root: Root, inside: Path) -> None:
    os.link(inside / "etc/shadow", inside / "twin")
    assert content(root, "/twin") == b"of the workload"
    write(root, "/twin", b"new")
    assert content(root, "/etc/shadow") == b"of the workload", "a file takes a place, it does not write through names"


def test_links_in_a_circle_are_an_error(root: Root, inside: Path) -> None:
    (inside / "a").symlink_to("b")
    (inside / "b").symlink_to("a")
    with pytest.raises(Conflict, match="circle"):
        content(root, "/a")
    assert root.stat("/a", follow=False).target == root.read_link("/a") == "b"


@pytest.mark.parametrize("path", ["/a\0b", "/" + "x" * MAX_PATH_BYTES, "/" + "é" * (MAX_PATH_BYTES // 2)])
def test_a_path_that_no_kernel_takes_is_refused(root: Root, path: str) -> None:
    with pytest.raises(BadRequest):
        root.stat(path)


@pytest.mark.parametrize("path", ["", "/", "/etc/..", "/etc/.", ".."])
def test_what_has_no_name_cannot_be_made_moved_or_taken_away(root: Root, path: str) -> None:
    uses: tuple[Use, ...] = (lambda: root.make_directory(path), lambda: root.delete(path, recursive=True))
    for use in uses:
        with pytest.raises(BadRequest):
            use()
    with pytest.raises(BadRequest):
        root.rename("/etc", path)
    with pytest.raises(Conflict):
        write(root, path, b"")


def test_a_directory_is_read_page_by_page_whatever_comes_and_goes_meanwhile(root: Root, inside: Path) -> None:
    (inside / "many").mkdir()
    for number in range(2500):
        (inside / f"many/{number:04}").touch()
    names, after, more, pages = [], "", True, 0
    while more:
        page = root.list("/many", after)
        more, pages = page.more, pages + 1
        names += [entry.name for entry in page.entries]
        after = names[-1]
        (inside / f"many/{int(after) // 2:04}").unlink(missing_ok=True)  # before: does not move what is behind
    assert names == [f"{number:04}" for number in range(2500)] and pages == 3


def test_names_that_are_no_text_can_be_used(root: Root) -> None:
    name = os.fsdecode(b"/\xff\xfe name\n")
    write(root, name, b"x")
    assert content(root, name) == b"x" and root.list("/").entries[-1].name == name[1:]
    root.delete(name)


def test_a_file_appears_whole_and_keeps_its_mode_and_owner(root: Root, inside: Path) -> None:
    write(root, "/new", b"1")
    assert stat.S_IMODE((inside / "new").stat().st_mode) == 0o644
    (inside / "new").chmod(0o640)
    os.chown(inside / "new", 12345, 54321)
    writing = Writing.begin(root, "/new")
    writing.write(b"2" * 100_000)
    assert (inside / "new").read_bytes() == b"1", "nobody sees half of it"
    writing.finish()
    told = (inside / "new").stat()
    assert (told.st_size, stat.S_IMODE(told.st_mode), told.st_uid, told.st_gid) == (100_000, 0o640, 12345, 54321)
    write(root, "/new", b"3", mode=0o4755)
    assert stat.S_IMODE((inside / "new").stat().st_mode) == 0o755, "nobody becomes another by an upload"


def test_what_is_made_belongs_to_the_roots_owner(inside: Path) -> None:
    with Root.at(inside, Owner(1234, 4321)) as root:
        write(root, "/file", b"")
        root.make_directory("/a/b", parents=True)
        root.make_link("/link", "/nowhere")
        os.close(root.open_file("/opened", os.O_WRONLY | os.O_CREAT))
    for name in ("file", "a", "a/b", "link", "opened"):
        told = os.lstat(inside / name)
        assert (told.st_uid, told.st_gid) == (1234, 4321), name


def test_writing_to_a_link_writes_what_it_leads_to(root: Root, inside: Path) -> None:
    (inside / "link").symlink_to("etc/shadow")
    (inside / "dangling").symlink_to("nowhere")
    write(root, "/link", b"new")
    assert (inside / "link").is_symlink() and content(root, "/etc/shadow") == b"new"
    write(root, "/dangling", b"file")
    assert not (inside / "dangling").is_symlink() and content(root, "/dangling") == b"file"


def test_an_abandoned_file_leaves_nothing_and_a_named_part_can_be_gone_on_with(root: Root, inside: Path) -> None:
    writing = Writing.begin(root, "/file")
    writing.write(b"lost")
    writing.abandon()
    assert os.listdir(inside) == ["etc"]
    writing = Writing.begin(root, "/file", part="abc")
    writing.write(b"0123456789")
    writing.abandon()
    with pytest.raises(Conflict) as refused:
        Writing.begin(root, "/file", part="abc", offset=11)
    assert refused.value.details == {"offset": 10}
    writing = Writing.begin(root, "/file", part="abc", offset=5)
    writing.write(b"xyz")
    writing.finish()
    assert content(root, "/file") == b"01234xyz" and sorted(os.listdir(inside)) == ["etc", "file"]


def test_a_part_is_never_written_through_something_planted_in_its_place(
    root: Root, inside: Path, outside: Path
) -> None:
    (inside / ".kohakuriver-a.part").symlink_to(outside / "secret")
    os.link(inside / "etc/shadow", inside / ".kohakuriver-b.part")
    os.mkfifo(inside / ".kohakuriver-c.part")
    for part in "abc":
        with pytest.raises(Conflict):
            Writing.begin(root, "/file", part=part)
    assert (outside / "secret").read_bytes() == SECRET and content(root, "/etc/shadow") == b"of the workload"


def test_directories_are_made_moved_and_taken_away(root: Root, inside: Path) -> None:
    root.make_directory("/a/b/../c//d", parents=True)
    root.make_directory("/a/b", parents=True)
    with pytest.raises(Conflict, match="exists"):
        root.make_directory("/a/b")
    with pytest.raises(NotFound):
        root.make_directory("/x/y")
    with pytest.raises(Conflict):
        root.make_directory("/etc/shadow/x", parents=True)
    root.rename("/a/c", "/c")
    with pytest.raises(Conflict, match="exists"):
        root.rename("/etc/shadow", "/c")
    write(root, "/f", b"")
    root.rename("/etc/shadow", "/f", replace=True)
    with pytest.raises(Conflict, match="not empty"):
        root.delete("/c")
    root.delete("/c", recursive=True)
    root.delete("/f")
    assert sorted(str(path.relative_to(inside)) for path in inside.rglob("*")) == ["a", "a/b", "etc"]


def test_a_tree_too_deep_is_refused_and_one_that_nobody_wants_taken_away_stays(root: Root, inside: Path) -> None:
    root.make_directory("/deep" + "/d" * (MAX_DEPTH + 5), parents=True)
    with pytest.raises(Conflict, match="in each other"):
        root.delete("/deep", recursive=True)
    with pytest.raises(Stopped):
        root.delete("/etc", recursive=True, stop=lambda: True)
    root.delete("/deep/" + "d/" * 100, recursive=True)
    root.delete("/deep", recursive=True)
    assert os.listdir(inside) == ["etc"]


def test_a_files_mode_owner_and_times_can_be_set(root: Root, inside: Path) -> None:
    root.change("/etc/shadow", mode=0o600, owner=Owner(1, 2), times=(1.5, 2.5))
    told = (inside / "etc/shadow").stat()
    assert (stat.S_IMODE(told.st_mode), told.st_uid, told.st_gid, told.st_mtime) == (0o600, 1, 2, 2.5)


def test_a_file_can_be_opened_to_be_written_in_place(root: Root) -> None:
    opened = root.open_file("/log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(opened, b"line\n")
    os.close(opened)
    with pytest.raises(Conflict):
        root.open_file("/log", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.close(root.open_file("/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    assert content(root, "/log") == b"" and root.stat("/log").status.st_mode & 0o777 == 0o600


def test_a_full_file_system_is_told_as_what_it_is(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writing = Writing.begin(root, "/file")
    monkeypatch.setattr("os.write", full)
    with pytest.raises(Conflict, match="No space left"):
        writing.write(b"x")
    writing.abandon()
