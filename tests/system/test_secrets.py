"""Secrets in files: only the owner reads them, and everybody who makes one agrees on it."""

import os
import secrets
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kohakuriver.system.secrets import SECRET_BYTES, UnsafeFile, load_secret, make_secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_a_secret_is_made_once_and_read_ever_after(path: Path) -> None:
    made = make_secret(path)
    assert len(made) == SECRET_BYTES and made == make_secret(path) == load_secret(path)
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"


def test_its_file_and_new_directories_are_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_secret(tmp_path / "deep" / "secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "deep/secret").stat().st_mode) == 0o600


def test_a_secret_that_is_not_there_is_not_there(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_secret(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_file_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    write(path, "ab" * SECRET_BYTES, mode)
    for read in (load_secret, make_secret):
        with pytest.raises(UnsafeFile, match="chmod 600"):
            read(path)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_file_that_is_the_owners_alone_will_do(path: Path, mode: int) -> None:
    assert load_secret(write(path, "ab" * SECRET_BYTES + "\n", mode)) == b"\xab" * SECRET_BYTES


@pytest.mark.parametrize("content", [b"", b"\n", b"not hex", b"\xff\xfe\x00", b"ab" * (SECRET_BYTES - 1), b"a" * 65])
def test_what_is_no_secret_is_refused_by_its_path(path: Path, content: bytes) -> None:
    with pytest.raises(UnsafeFile, match=str(path)):
        load_secret(write(path, content))
    with pytest.raises(UnsafeFile):
        make_secret(path)
    assert path.read_bytes() == content, "and is never replaced"


def test_a_link_is_not_followed(tmp_path: Path, path: Path) -> None:
    real = tmp_path / "real"
    make_secret(real)
    path.symlink_to(real)
    for read in (load_secret, make_secret):
        with pytest.raises(UnsafeFile, match="link"):
            read(path)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFile):
        make_secret(dangling)
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(UnsafeFile):
            load_secret(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
def test_a_file_of_somebody_else_is_refused(path: Path) -> None:
    make_secret(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(UnsafeFile):
        load_secret(path)


def test_makers_that_race_agree(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            assert len(set(pool.map(lambda _: make_secret(path), range(8)))) == 1
            path.unlink()


def test_processes_that_race_agree(path: Path) -> None:
    code = "import sys, pathlib, kohakuriver.system.secrets as s; print(s.make_secret(pathlib.Path(sys.argv[1])).hex())"
    makers = [
        subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        for _ in range(3)
    ]
    told = {maker.communicate()[0].strip() for maker in makers}
    assert told == {load_secret(path).hex().encode()}


def test_a_maker_that_was_killed_in_the_middle_leaves_no_half_secret(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            make_secret(path)
    assert not path.exists()
    assert len(make_secret(path)) == SECRET_BYTES


def test_secrets_are_drawn_from_the_system(tmp_path: Path) -> None:
    made = [make_secret(tmp_path / secrets.token_hex(4)) for _ in range(50)]
    assert len(set(made)) == 50
