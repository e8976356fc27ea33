"""Signed calls: nothing that was changed, recorded, delayed or made up is believed, in either direction."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.model.errors import NotLoggedIn, RiverError, StaleSignature, TooMany
from kohakuriver.wire import sign
from kohakuriver.wire.sign import ANSWER_HEADER, REQUEST_HEADER, WINDOW_SECONDS, Request, Signed, Signer, Verifier

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
REQUEST = Request("POST", "/api/nodes/n1/report", "a=1&b=%20", b'{"x":1}')


class Time:
    """Seconds that a test moves."""

    def __init__(self, at: float = 1_700_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Pair:
    """A caller and a program called, each with its own clock."""

    def __init__(self, skew_seconds: float = 0.0, key: bytes = KEY) -> None:
        self.here, self.there = Time(1_700_000_000.0 + skew_seconds), Time()
        self.signer = Signer("n1", key, self.here)
        self.verifier = Verifier({"n1": KEY}.get, self.there)

    def call(self, request: Request = REQUEST) -> tuple[str, Signed]:
        """One call with the one retry that a caller makes; the header that was accepted, and who it was."""
        for _ in range(2):
            headers, _ = self.signer.sign(request)
            try:
                return headers[REQUEST_HEADER], self.verifier.verify(headers[REQUEST_HEADER], request)
            except StaleSignature as stale:
                self.signer.learn(stale.details["audience"], stale.details["now"])
        raise AssertionError("not healed by one more round trip")

    def passes(self, seconds: float) -> None:
        self.here.at += seconds
        self.there.at += seconds


def test_a_call_is_known_by_its_name_and_key() -> None:
    _, signed = Pair().call()
    assert (signed.name, signed.key) == ("n1", KEY) and len(signed.nonce) == 24


@pytest.mark.parametrize("skew_seconds", [0.0, 59.0, -59.0, 61.0, -61.0, 3600.0, -3600.0, 1e9, -1e9])
def test_clocks_that_differ_are_healed_by_one_more_round_trip(skew_seconds: float) -> None:
    pair = Pair(skew_seconds)
    for _ in range(3):
        pair.call()
        pair.passes(1000)
        headers, _ = pair.signer.sign(REQUEST)
        assert pair.verifier.verify(headers[REQUEST_HEADER], REQUEST).name == "n1", "and need no other"


def test_a_changed_byte_anywhere_in_the_header_is_refused() -> None:
    pair = Pair()
    pair.call()
    header = pair.signer.sign(REQUEST)[0][REQUEST_HEADER]
    for at, letter in enumerate(header):
        for other in {"0", "1", "f", ";", "v", " ", chr((ord(letter) ^ 1) or 1)} - {letter}:
            with pytest.raises(NotLoggedIn) as refused:
                pair.verifier.verify(header[:at] + other + header[at + 1 :], REQUEST)
            assert not isinstance(refused.value, StaleSignature), "nothing is told to whoever has no key"
    for changed in (header.upper(), header + "0", header[:-1], header + ";", "", ";;;;;", "v1;;;;;", "v1"):
        with pytest.raises(NotLoggedIn):
            pair.verifier.verify(changed, REQUEST)
    assert pair.verifier.verify(header, REQUEST).name == "n1", "all these tries used nothing up"


@pytest.mark.parametrize("part", ["method", "path", "query", "body"])
def test_a_changed_byte_anywhere_in_the_request_is_refused(part: str) -> None:
    pair = Pair()
    pair.call()
    header = pair.signer.sign(REQUEST)[0][REQUEST_HEADER]
    whole = getattr(REQUEST, part)
    raw = whole if isinstance(whole, bytes) else whole.encode()
    for at in range(len(raw) + 1):
        for changed in (raw[:at] + b"x" + raw[at:], raw[:at] + raw[at + 1 :], raw[:at] + b"\n" + raw[at + 1 :]):
            if changed != raw:
                members = {**{p: getattr(REQUEST, p) for p in ("method", "path", "query", "body")}}
                members[part] = changed if part == "body" else changed.decode()
                with pytest.raises(NotLoggedIn):
                    pair.verifier.verify(header, Request(**members))


@settings(deadline=None)
@given(st.text("ab/\n?;", max_size=4), st.text("ab/\n?;", max_size=4), st.text("ab/\n?;", max_size=4))
def test_no_two_requests_have_one_signature_by_shifting_bytes_between_their_parts(a: str, b: str, c: str) -> None:
    pair = Pair()
    pair.call()
    header = pair.signer.sign(Request("GET", "/a", "b", b""))[0][REQUEST_HEADER]
    if (a, b, c) != ("GET", "/a", "b"):
        with pytest.raises(NotLoggedIn):
            pair.verifier.verify(header, Request(a, b, c, b""))


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=80) | st.builds(";".join, st.lists(st.text(max_size=20), min_size=5, max_size=7)))
def test_any_header_at_all_is_refused_and_never_a_crash(header: str) -> None:
    for text in (header, "v1;" + header, "v1;n1;;1;n;" + header, "v1;n1;\udcff;1;n;\udcff"):
        with pytest.raises(NotLoggedIn):
            Pair().verifier.verify(text, REQUEST)


def test_a_wrong_secret_and_an_unknown_name_are_refused_alike() -> None:
    with pytest.raises(NotLoggedIn, match="same cluster secret") as wrong:
        Pair(key=OTHER_KEY).call()
    stranger = Signer("n2", bytes(32), Time())
    with pytest.raises(NotLoggedIn) as unknown:
        Pair().verifier.verify(stranger.sign(REQUEST)[0][REQUEST_HEADER], REQUEST)
    assert str(wrong.value) == str(unknown.value) and type(wrong.value) is type(unknown.value) is NotLoggedIn


def test_a_replay_is_refused_however_much_later() -> None:
    for skew_seconds in (0.0, 59.0, -59.0, 500.0):
        pair = Pair(skew_seconds)
        pair.call()
        pair.here.at += skew_seconds and 59
        header, _ = pair.call()
        for _ in range(200):
            with pytest.raises(NotLoggedIn):
                pair.verifier.verify(header, REQUEST)
            pair.passes(3)
            if int(pair.there.at) % 7 == 0:
                pair.call()  # others go on, so that what was seen is turned over


def test_what_was_recorded_before_a_restart_is_worth_nothing_after() -> None:
    pair = Pair()
    header, _ = pair.call()
    pair.verifier = Verifier({"n1": KEY}.get, pair.there)
    with pytest.raises(StaleSignature):
        pair.verifier.verify(header, REQUEST)
    pair.call()
    with pytest.raises(NotLoggedIn):
        pair.verifier.verify(header, REQUEST)


def test_a_call_for_one_program_is_worth_nothing_at_another() -> None:
    one, other = Pair(), Pair()
    header, _ = one.call()
    headers, _ = one.signer.sign(REQUEST)
    with pytest.raises(StaleSignature):
        other.verifier.verify(headers[REQUEST_HEADER], REQUEST)
    assert one.verifier.verify(headers[REQUEST_HEADER], REQUEST) and header


def test_a_signature_is_good_for_its_window_and_no_longer() -> None:
    for late, good in ((WINDOW_SECONDS - 1, True), (WINDOW_SECONDS + 1, False), (-WINDOW_SECONDS - 1, False)):
        pair = Pair()
        pair.call()
        header = pair.signer.sign(REQUEST)[0][REQUEST_HEADER]
        pair.there.at += late
        if good:
            pair.verifier.verify(header, REQUEST)
        else:
            with pytest.raises(StaleSignature):
                pair.verifier.verify(header, REQUEST)


def test_too_many_open_nonces_are_refused_and_later_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign, "MAX_NONCES", 5)
    pair = Pair()
    for _ in range(5):
        pair.call()
    with pytest.raises(TooMany):
        pair.call()
    pair.passes(2 * WINDOW_SECONDS + 1)
    pair.call()


def test_an_answer_is_trusted_only_with_our_key_nonce_status_and_body() -> None:
    pair = Pair()
    _, nonce = pair.signer.sign(REQUEST)
    good = {ANSWER_HEADER: sign.answer_mac(KEY, nonce, 200, b"{}")}
    assert pair.signer.trusts(good, nonce, 200, b"{}")
    assert not pair.signer.trusts(good, nonce, 201, b"{}")
    assert not pair.signer.trusts(good, nonce, 200, b"{} ")
    assert not pair.signer.trusts(good, "0" * 24, 200, b"{}")
    for header in (
        "",
        "0" * 64,
        sign.answer_mac(OTHER_KEY, nonce, 200, b"{}"),
        "\udcff",
        "é",
        good[ANSWER_HEADER].upper(),
    ):
        assert not pair.signer.trusts({ANSWER_HEADER: header}, nonce, 200, b"{}")
    assert not pair.signer.trusts({}, nonce, 200, b"{}")


def test_every_call_has_its_own_nonce() -> None:
    pair = Pair()
    assert len({pair.signer.sign(REQUEST)[1] for _ in range(1000)}) == 1000


def test_steady_time_is_the_wall_clock_that_nobody_can_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = sign.SteadyTime()
    before = steady()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= steady() - before < 5


def test_refusals_are_errors_of_ours() -> None:
    assert issubclass(sign.SignAgain, StaleSignature) and issubclass(StaleSignature, RiverError)
