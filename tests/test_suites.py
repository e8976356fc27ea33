"""The two halves of the tests: which exit code they give together, and that no real suite is skipped unseen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.__main__ import both

TESTS = """
import pytest

@pytest.mark.docker
def test_it_runs_in_a_container(): pass

@pytest.mark.artifact
def test_it_needs_what_is_not_there(): pytest.skip("there is none")

def test_it_is_quick(): pytest.skip("that is allowed")
"""


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([5, 0], 0), ([0, 5], 0), ([5, 5], 5), ([1, 0], 1), ([0, 1], 1), ([2], 2), ([5, 2], 2)],
)
def test_both_halves_are_one_result(codes: list[int], code: int) -> None:
    assert both(codes) == code


def test_a_skip_of_a_real_suite_is_a_failure_whichever_process_it_ran_in(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    top, tally = Path(__file__).resolve().parents[1], tmp_path / "tally"
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "--numprocesses=1", "--no-skips", f"--tally={tally}"]
    said = subprocess.run(
        [sys.executable, "-m", "pytest", f"--rootdir={tmp_path}", *options, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(top)},
        timeout=100,
    )
    assert said.returncode == 1 and tally.read_text().startswith("1 failed, 1 passed, 1 skipped")
    assert "--no-skips: Skipped: there is none" in said.stdout
    assert "no test marked `artifact` has passed" in said.stdout and "`docker` has passed" not in said.stdout
