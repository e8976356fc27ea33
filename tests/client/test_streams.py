"""What the socket commands decide by themselves: keys that are for them, ports as they are written, input said again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.client.streams.escapes import Escapes
from kohakuriver.client.streams.mapping import Mapping, parse
from kohakuriver.client.streams.terminal import UNTAKEN_BYTES, Unsent
from kohakuriver.model.errors import BadRequest
from tests.client.conftest import River


@pytest.mark.parametrize(
    ("typed", "goes_on", "leaves"),
    [
        (b"ls\r", b"ls\r", False),
        (b"~.", b"", True),
        (b"ls\r~.rest", b"ls\r", True),
        (b"a~.", b"a~.", False),
        (b"~~.", b"~.", False),
        (b"~x", b"~x", False),
        (b"\n~", b"\n", False),
        (b"~\r~.", b"~\r", True),
    ],
)
def test_a_tilde_at_the_beginning_of_a_line_is_for_us(typed: bytes, goes_on: bytes, leaves: bool) -> None:
    assert Escapes().feed(typed) == (goes_on, leaves)


@given(st.binary(max_size=40).map(lambda data: data.replace(b".", b"~")), st.integers(1, 5))
def test_keys_mean_the_same_however_they_come(typed: bytes, size: int) -> None:
    bit_by_bit = Escapes()
    pieces = [bit_by_bit.feed(typed[at : at + size]).data for at in range(0, len(typed), size)]
    assert b"".join(pieces) == Escapes().feed(typed).data


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("80", Mapping("127.0.0.1", 80, 80)),
        ("8080:80", Mapping("127.0.0.1", 8080, 80)),
        ("0:80", Mapping("127.0.0.1", 0, 80)),
        ("0.0.0.0:8080:80", Mapping("0.0.0.0", 8080, 80)),
        ("[::1]:8080:80", Mapping("::1", 8080, 80)),
    ],
)
def test_ports_are_written_as_elsewhere(text: str, mapping: Mapping) -> None:
    assert parse(text) == mapping


@pytest.mark.parametrize("text", ["", "x", "0", "80:", "65536", "80:70000", "-1", "8080:0", "1:2:x"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a port"):
        parse(text)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=10), st.integers(0, 250))
def test_input_is_kept_until_it_is_known_to_be_there(pieces: list[bytes], taken: int) -> None:
    whole = b"".join(pieces)
    taken = min(taken, len(whole))
    unsent = Unsent()
    for piece in pieces:
        unsent.add(piece)
    unsent.confirm(taken)
    assert b"".join(unsent.pieces) == whole[taken:] and unsent.taken == taken


def test_no_more_is_read_than_can_be_said_again() -> None:
    unsent = Unsent()
    unsent.add(bytes(UNTAKEN_BYTES))
    assert not unsent.room.is_set()
    unsent.confirm(1)
    assert unsent.room.is_set()


def test_options_behind_the_id_are_not_taken_for_a_program(river: River) -> None:
    told = river("connect", "123", "--shell", "sh")
    assert told.code == 2 and "stand before the ID" in told.err


def test_ports_are_checked_before_anybody_is_asked(river: River) -> None:
    told = river("forward", "123", "x")
    assert told.code == 2 and "is not a port" in told.err


def test_a_host_that_is_not_there_is_told_as_by_any_command(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOHAKURIVER_PORT", "1")
    told = river("connect", "123", "--", "true")
    assert told.code == 6 and "is `kohakuriver host` running there?" in told.err
