"""Words for sizes, durations, targets and times mean what people mean by them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.model.units import (
    Target,
    parse_bytes,
    parse_seconds,
    parse_target,
    rfc3339,
    show_bytes,
    show_seconds,
    unix_seconds,
)


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("0", 0), ("512", 512), ("512B", 512), ("4K", 4000), ("4M", 4_000_000), ("4G", 4 * 10**9), ("4T", 4 * 10**12),
        ("4Ki", 4096), ("4Mi", 4 * 2**20), ("4Gi", 4 * 2**30), ("4Ti", 4 * 2**40), ("8g", 8 * 10**9), ("8gi", 8 * 2**30),
        ("8GB", 8 * 10**9), ("8GiB", 8 * 2**30), ("1.5G", 1_500_000_000), ("0.5Gi", 2**29), (" 2G ", 2 * 10**9),
    ],
)  # fmt: skip
def test_sizes_are_decimal_with_plain_letters_and_binary_with_an_i(word: str, count: int) -> None:
    assert parse_bytes(word) == count


@pytest.mark.parametrize(
    "word",
    ["", "G", "-1", "+1", "1,5G", "4 G", "4X", "4Kib4", "1e9", "0x10", "٤G", "4\u212a", "4\u212ai", "4k\u0131", "4K\u0130", "1.G",
     ".5G", "1.2345G", "9" * 16, "4G\n5", "nan", "inf", "4Ei", "４G"],
)  # fmt: skip
def test_what_is_not_a_size_says_so(word: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(word)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=12) | st.from_regex(r"\d{1,3}(\.\d)?\s?\w{0,3}", fullmatch=True))
def test_any_word_is_a_size_or_a_value_error(word: str) -> None:
    for parse in (parse_bytes, parse_seconds):
        try:
            assert parse(word) >= 0
        except ValueError as refused:
            assert "is not a" in str(refused)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**15 - 1))
def test_a_shown_size_reads_back_to_three_digits(count: int) -> None:
    shown = show_bytes(count)
    assert abs(parse_bytes(shown) - count) <= max(0.051 * 10 ** (3 * ((len(str(count)) - 1) // 3)), 0)
    assert len(shown) <= 6 or shown.startswith("1000.0"), shown


def test_a_size_that_is_not_known_is_a_dash() -> None:
    assert (show_bytes(None), show_bytes(0), show_bytes(8_000_000_000), show_seconds(None)) == ("-", "0B", "8.0G", "-")


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1d12h", 129_600), (" 5m ", 300)],
)  # fmt: skip
def test_durations_are_numbers_with_units(word: str, seconds: int) -> None:
    assert parse_seconds(word) == seconds


@pytest.mark.parametrize("word", ["", "h", "-1", "1.5h", "1h30", "1w", "2 h", "1H", "٩s", "1h\n"])
def test_what_is_not_a_duration_says_so(word: str) -> None:
    if word.strip() == "1h":
        assert parse_seconds(word) == 3600
        return
    with pytest.raises(ValueError, match="is not a duration"):
        parse_seconds(word)


@settings(deadline=None, max_examples=50)
@given(st.integers(10, 86400 * 1000))
def test_a_shown_duration_reads_back_within_its_smaller_unit(seconds: int) -> None:
    back = parse_seconds(show_seconds(seconds))
    assert 0 <= seconds - back < (1 if seconds < 3600 else 60 if seconds < 86400 else 3600)


@pytest.mark.parametrize(
    ("word", "target"),
    [
        ("alpha", Target("alpha")),
        ("alpha:1", Target("alpha", 1)),
        ("alpha::0,1", Target("alpha", None, (0, 1))),
        ("node:1::0,1", Target("node", 1, (0, 1))),
        ("n:0::7", Target("n", 0, (7,))),
    ],
)
def test_a_target_is_a_host_perhaps_with_a_numa_node_and_gpus(word: str, target: Target) -> None:
    assert parse_target(word) == target


@pytest.mark.parametrize(
    "word", ["", ":1", "::0", "a:", "a::", "a:b", "a::0,", "a::,0", "a::0 ,1", "a:1:0", "a::٠", "a:-1", "a:1000"]
)
def test_what_is_not_a_target_says_so(word: str) -> None:
    with pytest.raises(ValueError, match="is not a target"):
        parse_target(word)


def test_a_target_names_no_gpu_twice() -> None:
    with pytest.raises(ValueError, match="names a GPU twice"):
        parse_target("a::1,1")


@settings(deadline=None, max_examples=50)
@given(
    st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
    st.none() | st.integers(0, 999),
    st.lists(st.integers(0, 999), unique=True, max_size=4),
)
def test_a_target_reads_back_as_it_is_written(host: str, numa: int | None, gpus: list[int]) -> None:
    word = host + (f":{numa}" if numa is not None else "") + (f"::{','.join(map(str, gpus))}" if gpus else "")
    assert parse_target(word) == Target(host, numa, tuple(gpus))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 4 * 10**12))
def test_a_time_reads_back_to_the_millisecond(at_ms: int) -> None:
    shown = rfc3339(at_ms / 1000)
    assert abs(unix_seconds(shown) * 1000 - at_ms) < 1.001
    assert datetime.fromisoformat(shown).tzinfo == UTC and len(shown) == 24 and shown.endswith("Z")


def test_times_are_utc_with_milliseconds() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
    assert rfc3339(253_402_300_799) == "9999-12-31T23:59:59.000Z"
    there = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2)))
    assert unix_seconds(there.isoformat()) == there.timestamp()


@pytest.mark.parametrize("text", ["2024-01-01T00:00:00", "2024-01-01", "yesterday", ""])
def test_a_time_without_a_zone_is_nobodys_time(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        unix_seconds(text)
