"""Frames of terminals and tunnels: what is packed comes out again, and nothing but a refusal comes of garbage."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.model import terminal, tunnel
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.terminal import EndInput, Input, Kind, Leave, Received, Resize, Signal, TextOut
from kohakuriver.model.tunnel import Frame, Type


@given(st.sampled_from(Type), st.integers(0, 2**32 - 1), st.sampled_from([0, 1]), st.integers(0, 65535), st.binary())
def test_a_tunnel_frame_comes_out_as_it_went_in(kind: Type, client: int, proto: int, port: int, payload: bytes) -> None:
    frame = Frame(kind, client, proto, port, payload)
    assert tunnel.decode(frame.encode()) == frame


def test_a_tunnel_frame_is_what_the_format_says() -> None:
    assert Frame(Type.DATA, 0x01020304, 1, 80, b"x").encode() == b"\x03\x01\x01\x02\x03\x04\x00\x50x"


@given(st.binary() | st.text())
def test_garbage_is_refused_or_is_a_frame(message: bytes | str) -> None:
    for read in (tunnel.decode, terminal.split, terminal.read_bytes, terminal.read_text):
        try:
            assert read(message) is not None
        except BadRequest as refused:
            assert str(refused).startswith("frame: ")


def test_what_programs_say_is_understood() -> None:
    assert terminal.read_bytes(terminal.frame(Kind.INPUT, b"\0\xff")) == Input(b"\0\xff")
    assert terminal.read_bytes(terminal.resize_frame(24, 80)) == Resize(24, 80)
    assert terminal.read_bytes(terminal.total_frame(Kind.RECEIVED, 2**40)) == Received(2**40)
    assert terminal.read_bytes(terminal.frame(Kind.END_INPUT)) == EndInput()
    assert terminal.read_bytes(terminal.frame(Kind.SIGNAL, b"\x02")) == Signal(2)
    assert terminal.read_bytes(terminal.frame(Kind.LEAVE)) == Leave()
    assert terminal.split(terminal.exit_frame(-1)) == (Kind.EXIT, b"\xff\xff\xff\xff")
    assert terminal.read_exit(terminal.exit_frame(137)[1:]) == 137


@pytest.mark.parametrize("size", [(0, 80), (24, 0), (10_001, 80)])
def test_a_size_that_no_terminal_has_is_refused(size: tuple[int, int]) -> None:
    rows, columns = size
    with pytest.raises(BadRequest):
        terminal.read_text(json.dumps({"type": "resize", "rows": rows, "cols": columns}))


@given(st.text(), st.lists(st.integers(0, 50)))
def test_characters_stay_whole_however_they_are_cut(text: str, cuts: list[int]) -> None:
    data, out, said = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode(), TextOut(), ""
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(borders):
        frame = out.output(data[start:end])
        said += json.loads(frame)["data"] if frame else ""
    assert said == data.decode()


@pytest.mark.parametrize("data", ["5", "null", '["ls"]', '{"a": 1}', "true"])
def test_only_text_is_typed(data: str) -> None:
    with pytest.raises(BadRequest, match="frame: expected JSON"):
        terminal.read_text(f'{{"type": "input", "data": {data}}}')
