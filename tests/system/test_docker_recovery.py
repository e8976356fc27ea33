"""Docker's log completes the log files: nothing is lost that it has, nothing is doubled."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.docker_frames import STDERR, STDOUT
from kohakuriver.system.docker_output import Output
from kohakuriver.system.docker_recovery import (
    Anchor,
    Recovery,
    docker_time,
    drop_anchor,
    load_anchor,
    overlap,
    save_anchor,
)
from kohakuriver.system.engine import cut_marker
from tests.system.test_docker_frames import log_of

START = Anchor()


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last))


def framed(stream: int, records: list[bytes]) -> bytes:
    return b"".join(struct.pack(">BxxxI", stream, len(record)) + record for record in records)


def recover(
    directory: Path,
    log: bytes,
    *,
    anchor: Anchor = START,
    limit_bytes: int = 10**6,
    cut_bytes: int = 1000,
    last_words: dict[int, bytes] | None = None,
) -> bytes:
    """What stdout holds after the log was read, in pieces."""
    output = Output(directory, limit_bytes)
    recovery = Recovery(output, anchor, loses_line_ends=True)
    for at in range(0, len(log), cut_bytes):
        recovery.feed(log[at : at + cut_bytes])
    recovery.end(last_words or {})
    output.close()
    return (directory / "stdout").read_bytes()


@given(
    words=st.lists(st.sampled_from([b"", b"a", b"bb", b"ccc", b"x" * 20_000]), max_size=12),
    rest=st.sampled_from([b"", b"tail"]),
    share=st.floats(0, 1),
    cut_bytes=st.integers(1, 50_000),
)
def test_whatever_a_file_held_it_is_whole_afterwards(
    tmp_path_factory: pytest.TempPathFactory, words: list[bytes], rest: bytes, share: float, cut_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("join")
    output = b"".join(word + b"\n" for word in words) + rest
    (directory / "stdout").write_bytes(output[: int(len(output) * share)])
    log = framed(STDOUT, log_of(output, loses_line_ends=True))
    assert recover(directory, log, cut_bytes=max(cut_bytes, len(log) // 50 + 1)) == output
    assert recover(directory, log, cut_bytes=100_000) == output, "and reading it again changes nothing"


def test_both_streams_are_joined_each_where_it_stood(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"one\nt")
    (tmp_path / "stderr").write_bytes(b"")
    log = framed(STDOUT, log_of(b"one\ntwo\n", True)) + framed(STDERR, log_of(b"problem\n", True))
    assert recover(tmp_path, log) == b"one\ntwo\n"
    assert (tmp_path / "stderr").read_bytes() == b"problem\n"


def test_a_line_copied_live_without_an_end_gets_none(tmp_path: Path) -> None:
    output = b"x" * 20_000
    (tmp_path / "stdout").write_bytes(output)
    assert recover(tmp_path, framed(STDOUT, log_of(output, loses_line_ends=True))) == output


def test_a_log_whose_beginning_was_rotated_away_is_joined_where_it_overlaps(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(lines(0, 5000))
    log = framed(STDOUT, log_of(lines(4000, 6000), True))
    assert recover(tmp_path, log) == lines(0, 6000)


def test_a_rotated_log_of_few_lines_is_joined_too(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(lines(0, 5))
    assert recover(tmp_path, framed(STDOUT, log_of(lines(3, 7), True))) == lines(0, 7)
    assert recover(tmp_path, framed(STDOUT, log_of(lines(8, 9), True))) == lines(0, 7) + lines(8, 9)


def test_a_hole_in_the_log_is_filled_by_what_the_file_holds(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(lines(0, 500) + b"line")
    log = framed(STDOUT, log_of(lines(0, 300), True) + log_of(b" 500\n" + lines(501, 600), True))
    assert recover(tmp_path, log) == lines(0, 600)


def test_records_after_a_death_of_the_daemon_belong_where_the_file_stood(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"tick\ntick\ntick\n")
    log = framed(STDOUT, log_of(b"tick\ntick\n", True))
    anchor = Anchor(after=5.0, stdout=15)
    assert recover(tmp_path, log, anchor=anchor) == b"tick\n" * 5
    assert recover(tmp_path, log, anchor=anchor) == b"tick\n" * 5
    (tmp_path / "stdout").write_bytes(b"tick\n" * 3 + b"ti")
    assert recover(tmp_path, log, anchor=anchor) == b"tick\n" * 5


def test_last_words_follow_the_log_once(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"one\ntw")
    log = framed(STDOUT, log_of(b"one\ntwo\n", True))
    for _ in range(2):
        assert recover(tmp_path, log, last_words={STDOUT: b"three\n"}) == b"one\ntwo\nthree\n"
    (tmp_path / "stdout").write_bytes(b"one\ntwo\nth")
    assert recover(tmp_path, log, last_words={STDOUT: b"three\n"}) == b"one\ntwo\nthree\n"


def test_a_file_is_cut_at_the_same_place_however_often_it_was_taken_up(tmp_path: Path) -> None:
    log = framed(STDOUT, log_of(lines(0, 500), True))
    for held_bytes in (0, 10, 100, 105):
        (tmp_path / "stdout").write_bytes((lines(0, 500)[:100] + cut_marker(100))[:held_bytes])
        assert recover(tmp_path, log, limit_bytes=100) == lines(0, 500)[:100] + cut_marker(100)


def test_a_log_that_docker_cannot_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="cannot read its log: bad record"):
        recover(tmp_path, framed(3, [b"bad record\n"]))
    Output(tmp_path, 1).close()


@given(held=st.text("ab", max_size=12), window=st.text("ab", min_size=1, max_size=12))
def test_the_overlap_is_the_longest_there_is(held: str, window: str) -> None:
    place = overlap(held.encode(), window.encode())

    def agrees(at: int) -> bool:
        return held[at:].startswith(window) or window.startswith(held[at:])

    assert agrees(place)
    assert not any(agrees(at) for at in range(place))


def test_the_anchor_is_kept_beside_the_files_until_they_are_whole(tmp_path: Path) -> None:
    assert load_anchor(tmp_path) == START
    anchor = Anchor(after=1.5, stdout=10, stderr=20, lost_at=7.25)
    save_anchor(tmp_path, anchor)
    assert load_anchor(tmp_path) == anchor
    drop_anchor(tmp_path)
    drop_anchor(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_anchor_is_no_anchor(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"unknown": 1}'):
        (tmp_path / ".resume").write_text(text)
        assert load_anchor(tmp_path) == START


def test_times_are_told_to_docker_in_nanoseconds() -> None:
    assert docker_time(0) == "0.000000000"
    assert docker_time(1764000000.25) == "1764000000.250000000"
