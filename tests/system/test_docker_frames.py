"""Docker's frames become exactly what the program wrote."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.system.docker_frames import Frames


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(payload)) + payload


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))), st.integers(1, 70))
def test_frames_come_out_whole_however_the_stream_is_cut(pieces: list[tuple[int, bytes]], cut_bytes: int) -> None:
    whole = b"".join(frame(stream, payload) for stream, payload in pieces)
    frames = Frames()
    found = [piece for at in range(0, len(whole), cut_bytes) for piece in frames.feed(whole[at : at + cut_bytes])]
    assert found == pieces
