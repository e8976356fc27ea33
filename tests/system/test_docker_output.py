"""Log files hold what was written, up to the limit, whatever happens in between."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.system.docker_frames import STDERR, STDOUT
from kohakuriver.system.docker_output import LogFile, Output
from kohakuriver.system.engine import cut_marker


def write(path: Path, limit_bytes: int, *chunks: bytes) -> bytes:
    file = LogFile(path, limit_bytes)
    for chunk in chunks:
        file.append(chunk)
        file.flush()
    file.close()
    return path.read_bytes()


def cut(output: bytes, limit_bytes: int) -> bytes:
    return output if len(output) <= limit_bytes else output[:limit_bytes] + cut_marker(limit_bytes)


@given(chunks=st.lists(st.binary(max_size=30)), limit_bytes=st.integers(0, 60))
def test_output_is_cut_at_the_limit_and_marked_once(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], limit_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "stdout"
    assert write(path, limit_bytes, *chunks) == cut(b"".join(chunks), limit_bytes)


@pytest.mark.parametrize("size_bytes", range(3, 3 + len(cut_marker(5)) + 3))
def test_a_file_that_was_left_in_the_middle_is_ended_as_if_it_had_not(tmp_path: Path, size_bytes: int) -> None:
    whole = cut(b"0123456789", 5)
    path = tmp_path / "stdout"
    path.write_bytes(whole[:size_bytes])
    rest = b"" if size_bytes > 5 else b"0123456789"[size_bytes:]
    assert write(path, 5, rest) == whole
    assert write(path, 5, b"more") == whole


def test_a_file_knows_how_much_of_the_output_it_holds(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "stdout", 5)
    file.append(b"012345")
    file.flush()
    assert (file.held_bytes, file.is_full) == (5, True)
    assert file.read(2, 100) == b"234"
    file.close()


def test_both_streams_go_their_way_and_words_of_the_daemon_go_none(tmp_path: Path) -> None:
    output = Output(tmp_path / "new" / "folder", 100)
    output.append([(STDOUT, b"a"), (STDERR, b"b"), (3, b"daemon"), (STDOUT, b"c")])
    output.close()
    assert {path.name: path.read_bytes() for path in (tmp_path / "new" / "folder").iterdir()} == {
        "stdout": b"ac",
        "stderr": b"b",
    }


def test_what_a_full_disk_refused_is_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write_really = Output(tmp_path, 100), os.write

    def write_two_bytes_then_fail(descriptor: int, data: bytes) -> int:
        if len(data) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_really(descriptor, data[:2])

    monkeypatch.setattr(os, "write", write_two_bytes_then_fail)
    with pytest.raises(OSError, match="No space"):
        output.append([(STDOUT, b"hello"), (STDERR, b"problem")])
    monkeypatch.undo()
    output.append([(STDOUT, b" world")])
    output.sync()
    output.close()
    assert (tmp_path / "stdout").read_bytes() == b"hello world"
    assert (tmp_path / "stderr").read_bytes() == b"problem"


def test_nothing_is_written_after_the_files_were_closed(tmp_path: Path) -> None:
    output = Output(tmp_path, 100)
    output.close()
    output.append([(STDOUT, b"late")])
    output.close()
    assert (tmp_path / "stdout").read_bytes() == b""
