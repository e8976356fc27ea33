"""Docker's frames and log records become exactly what the program wrote."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.system.docker_frames import PIECE_BYTES, Frames, Records


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(payload)) + payload


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))), st.integers(1, 70))
def test_frames_come_out_whole_however_the_stream_is_cut(pieces: list[tuple[int, bytes]], cut_bytes: int) -> None:
    whole = b"".join(frame(stream, payload) for stream, payload in pieces)
    frames = Frames()
    found = [piece for at in range(0, len(whole), cut_bytes) for piece in frames.feed(whole[at : at + cut_bytes])]
    assert found == pieces


def log_of(output: bytes, loses_line_ends: bool) -> list[bytes]:
    """The records that Docker's `local` log gives for an output: see its copier, and how its reader ends lines."""
    records = []
    *lines, rest = output.split(b"\n")
    for number, line in enumerate(lines):
        stamp = b"2026-01-01T00:00:00.%09dZ " % number
        is_long = len(line) >= PIECE_BYTES
        while len(line) >= PIECE_BYTES:
            records.append(stamp + line[:PIECE_BYTES])
            line = line[PIECE_BYTES:]
        records.append(stamp + line + (b"" if is_long and loses_line_ends else b"\n"))
    stamp = b"2026-01-01T00:00:01.000000000Z "
    return records + [stamp + rest[at : at + PIECE_BYTES] for at in range(0, len(rest), PIECE_BYTES)]


def read_back(records: list[bytes], loses_line_ends: bool) -> bytes:
    reader = Records(loses_line_ends)
    return b"".join([*map(reader.feed, records), reader.end()])


LENGTHS = st.sampled_from([0, 1, 5, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 40_000])


@pytest.mark.parametrize("loses_line_ends", [True, False])
@given(lengths=st.lists(LENGTHS, max_size=6), rest=st.integers(0, 100))
def test_lines_of_any_length_come_back_with_their_ends(loses_line_ends: bool, lengths: list[int], rest: int) -> None:
    output = b"".join(b"x" * length + b"\n" for length in lengths) + b"y" * rest
    assert read_back(log_of(output, loses_line_ends), loses_line_ends) == output


def test_only_the_end_of_a_very_long_last_line_is_a_guess_with_an_old_daemon() -> None:
    output = b"x" * (PIECE_BYTES + 1)
    assert read_back(log_of(output, True), True) == output + b"\n"
    assert read_back(log_of(output, False), False) == output
    assert read_back(log_of(output + b"\n", True), True) == output + b"\n"


def test_a_line_that_a_stopped_daemon_broke_off_gets_no_end() -> None:
    records = [b"2026-01-01T00:00:00.1Z half a ", b"2026-01-01T00:00:09.1+02:00 line\n"]
    assert read_back(records, True) == b"half a line\n"
