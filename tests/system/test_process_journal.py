"""The journal of a workload: one claim, a lock that dies with its holder, and lines that a death may cut."""

import os
from pathlib import Path

import pytest

from kohakuriver.system import process_journal


def test_only_one_can_claim(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    descriptor = process_journal.claim(path)
    with pytest.raises(FileExistsError):
        process_journal.claim(path)
    os.close(descriptor)
    with pytest.raises(FileExistsError):
        process_journal.claim(path)


def test_it_can_be_taken_over_once_nobody_holds_it(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    descriptor = process_journal.claim(path)
    heir = os.dup(descriptor)
    os.close(descriptor)
    assert process_journal.take_over(path) is None
    os.close(heir)
    taken = process_journal.take_over(path)
    assert taken is not None
    os.close(taken)


def test_what_was_told_is_read_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    descriptor = process_journal.claim(path)
    process_journal.tell(descriptor, {"supervisor": [5, 6], "begun_at": 1.5})
    process_journal.tell(descriptor, {"exit": (1, None, False)})
    os.close(descriptor)
    assert process_journal.read(path) == {"supervisor": [5, 6], "begun_at": 1.5, "exit": [1, None, False]}


@pytest.mark.parametrize("torn", [b"", b"\n", b'\n{"exit": [0, nu', b'\n{"exit": [0, null, false]}'])
def test_a_line_that_is_not_whole_says_nothing(torn: bytes) -> None:
    assert process_journal.parse(b'\n{"begun_at": 1.0}\n' + torn) == {"begun_at": 1.0}


def test_a_torn_line_spoils_none_that_follows() -> None:
    text = b'\n{"begun_at": 1.0}\n\n{"exit": [0, nu' + b'\n{"exit": [3, null, false]}\n'
    assert list(process_journal.parse(text)["exit"]) == [3, None, False]


def test_a_full_disk_is_told() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        process_journal.tell(descriptor, {"begun_at": 1.0})
    os.close(descriptor)
