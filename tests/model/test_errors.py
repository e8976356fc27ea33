"""Errors keep their class across the wire, and each class has one meaning outside."""

from collections.abc import Iterator

import pytest

from kohakuriver.model import errors
from kohakuriver.model.errors import EngineFailed, RiverError, from_wire


def tree(kind: type[RiverError] = RiverError) -> Iterator[type[RiverError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


OURS = [kind for kind in tree() if kind is RiverError or "code" in kind.__dict__]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_an_error_comes_out_of_the_wire_as_it_went_in(kind: type[RiverError]) -> None:
    back = from_wire(kind.code, "why not", {"a": 1})
    assert type(back) is kind and str(back) == "why not" and back.details == {"a": 1}


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_an_error_has_a_status_and_an_exit_code_that_are_documented(kind: type[RiverError]) -> None:
    assert 400 <= kind.status < 600 and kind.exit_code in (1, 2, 3, 4, 5, 6)
    shown = next((line.split() for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line.split()), None)
    assert shown is not None, "not in the tree at the head of the file"
    if len(shown) == 4:
        assert shown[1:] == [str(kind.status), "exit", str(kind.exit_code)]


def test_codes_are_unique() -> None:
    assert len({kind.code for kind in OURS}) == len(OURS)


def test_an_unknown_code_is_still_an_error_of_ours() -> None:
    assert type(from_wire("from_the_future", "well")) is RiverError


def test_an_engine_failure_remembers_whether_another_node_might_do_better() -> None:
    for elsewhere in (True, False):
        failed = EngineFailed("no", retry_elsewhere=elsewhere)
        back = from_wire(failed.code, str(failed), failed.details)
        assert isinstance(back, EngineFailed) and back.retry_elsewhere is elsewhere
    assert not from_wire("engine_failed", "no").details
