"""Outputs that are kept no longer: which go, and what is said in their place."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.system.kept_logs import DAY_SECONDS, Keep, KeptLog, doomed, look, remove, word_of

NOW = 1_700_000_000.0
FOREVER = Keep(0, 0)


def kept(task_id: int, days_ago: float, size: int = 100) -> KeptLog:
    return KeptLog(task_id, 1, NOW - days_ago * DAY_SECONDS, size)


def numbers(going: list[KeptLog]) -> list[int]:
    return [each.task_id for each in going]


@pytest.mark.parametrize(
    ("keep", "going"),
    [
        (FOREVER, []),
        (Keep(5, 0), [1, 2]),
        (Keep(0, 250), [1, 2]),
        (Keep(0, 400), []),
        (Keep(9, 250), [1, 2]),
        (Keep(0, 1), [1, 2, 4]),
        (Keep(1, 1000), [1, 2, 4]),
    ],
)
def test_the_oldest_go_until_what_is_left_is_young_and_little_enough(keep: Keep, going: list[int]) -> None:
    found = [kept(4, 2), kept(1, 10), kept(3, 20), kept(2, 6)]  # 3 has not ended
    assert numbers(doomed(found, lambda each: each.task_id != 3, keep, NOW)) == going


@given(
    st.lists(
        st.builds(kept, st.integers(1, 9), st.floats(0, 30), st.integers(0, 1000)), unique_by=lambda each: each.task_id
    ),
    st.builds(Keep, st.integers(0, 10), st.integers(0, 3000)),
)
def test_nothing_that_runs_goes_and_nothing_goes_before_what_is_older(found: list[KeptLog], keep: Keep) -> None:
    going = doomed(found, lambda each: each.task_id % 2 == 0, keep, NOW)
    assert all(each.task_id % 2 == 0 for each in going)
    stays = [each for each in found if each not in going and each.task_id % 2 == 0]
    if going and stays:
        assert max(each.ended_at for each in going) <= min(each.ended_at for each in stays)
    if stays and keep.size_bytes:
        assert sum(each.size_bytes for each in found) - sum(e.size_bytes for e in going) <= keep.size_bytes


def test_what_goes_leaves_word_and_the_rest_is_untouched(tmp_path: Path) -> None:
    for task, attempt in ((1, 1), (1, 2), (2, 1)):
        directory = tmp_path / str(task) / str(attempt)
        directory.mkdir(parents=True)
        (directory / "stdout").write_bytes(b"x" * 10)
        (directory / "stderr").write_bytes(b"y" * 5)
        for path in (directory / "stdout", directory / "stderr", directory):
            os.utime(path, (NOW, NOW + task))
    (tmp_path / "not a task").mkdir()
    found = look(tmp_path)
    assert sorted((e.task_id, e.attempt, e.size_bytes, e.ended_at - NOW) for e in found) == [
        (1, 1, 15, 1), (1, 2, 15, 1), (2, 1, 15, 2),
    ]  # fmt: skip
    remove(tmp_path, [each for each in found if each.attempt == 1])
    assert [(each.task_id, each.attempt) for each in look(tmp_path)] == [(1, 2)]
    assert not (tmp_path / "2").exists() and (tmp_path / "not a task").exists()
    assert word_of(tmp_path, 1, 2) is None
    word = word_of(tmp_path, 2, 1)
    assert (
        word is not None and word.startswith(b"[kohakuriver: this output was removed on 20") and word.endswith(b"]\n")
    )


def test_what_cannot_be_removed_does_not_keep_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task in (1, 2):
        (tmp_path / str(task) / "1").mkdir(parents=True)
    rmtree = shutil.rmtree

    def refused(path: Path) -> None:
        if path.parent.name == "1":
            raise PermissionError(13, "Permission denied")
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", refused)
    remove(tmp_path, look(tmp_path))
    assert [each.task_id for each in look(tmp_path)] == [1]


def test_where_no_outputs_are_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert look(tmp_path / "nowhere") == []
    remove(tmp_path / "nowhere", [])
