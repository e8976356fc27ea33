"""Secrets that the host gives out say what they are, and are known only by their digest."""

import hashlib

import pytest

from kohakuriver.host.auth import credentials
from kohakuriver.host.auth.credentials import Kind


@pytest.mark.parametrize("kind", Kind)
def test_a_secret_says_what_it_is_and_matches_its_own_digest_only(kind: Kind) -> None:
    text = credentials.make(kind, 123456789012345678)
    assert credentials.read(text) == (kind, 123456789012345678)
    assert credentials.matches(text, credentials.digest_of(text))
    assert not credentials.matches(text + "x", credentials.digest_of(text))
    assert not credentials.matches(text, None)


def test_a_secret_holds_32_random_bytes_and_none_comes_twice() -> None:
    made = {credentials.make(Kind.TOKEN, 1) for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(text.removeprefix("krt_1_")) == 43 for text in made)


def test_the_digest_is_sha3_512() -> None:
    assert credentials.digest_of("krt_1_x") == hashlib.sha3_512(b"krt_1_x").digest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "krt",
        "krt_",
        "krt_1",
        "krt_1_",
        "krt__x",
        "krt_x_y",
        "krt_-1_x",
        "krt_١_x",
        "krt_1_" + "x" * 200,
        f"krt_{2**63}_x",
    ],
)
def test_what_is_no_secret_of_ours_is_told_from_one(text: str) -> None:
    assert credentials.read(text) is None


def test_half_a_surrogate_pair_is_only_a_wrong_secret() -> None:
    assert not credentials.matches("krt_1_\udcff", credentials.digest_of("krt_1_x"))
