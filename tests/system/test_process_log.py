"""A workload's log file: exact up to its limit, and honest about what is missing."""

from pathlib import Path

from kohakuriver.system.process_log import LogFile

MARKER = b"\n[cut]\n"


def written(path: Path, limit_bytes: int, *blocks: bytes) -> bytes:
    file = LogFile(str(path), limit_bytes, MARKER)
    for block in blocks:
        file.write(block)
    file.close()
    return path.read_bytes()


def test_everything_is_kept_up_to_the_limit(tmp_path: Path) -> None:
    assert written(tmp_path / "log", 10, b"01234", b"", b"56789") == b"0123456789"


def test_the_first_byte_over_the_limit_cuts(tmp_path: Path) -> None:
    assert written(tmp_path / "log", 10, b"01234", b"56789", b"x") == b"0123456789" + MARKER


def test_it_is_cut_within_a_block_and_marked_once(tmp_path: Path) -> None:
    assert written(tmp_path / "log", 7, b"01234", b"56789", b"more", b"more") == b"0123456" + MARKER


def test_a_limit_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    assert written(tmp_path / "log", 0, b"x") == MARKER


def test_a_disk_without_room_raises_nothing() -> None:
    file = LogFile("/dev/full", 1000, MARKER)
    file.write(b"lost")
    file.close()
