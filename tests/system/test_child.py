"""Running a command as a person would: lines come when they are printed, and nothing outlives its limit."""

import asyncio
import os
import sys
import time

import pytest

from kohakuriver.model.errors import Unavailable
from kohakuriver.system.child import Seen, run_child


def run(script: str, limit_seconds: float = 20.0) -> tuple[Seen, list[str]]:
    heard: list[str] = []
    seen = asyncio.run(run_child([sys.executable, "-uc", script], os.environ, heard.append, limit_seconds))
    return seen, heard


def test_lines_of_both_streams_and_the_exit_code_are_seen() -> None:
    seen, heard = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (seen.code, seen.lines, heard) == (3, ("out", "err"), ["out", "err"])
    assert seen.text == "out\nerr"


def test_a_line_is_heard_when_it_comes() -> None:
    seen, _ = run("import time; print('a'); time.sleep(0.3); print('b')")
    assert seen.times[1] - seen.times[0] > 0.15


def test_bytes_that_are_no_text_are_shown_as_well_as_can_be() -> None:
    assert run(r"import sys; sys.stdout.buffer.write(b'\xffa')")[0].lines == ("\ufffda",)


def test_the_environment_is_the_one_that_was_given() -> None:
    seen = asyncio.run(run_child(["/usr/bin/env"], {"ONLY": "this"}, lambda line: None, 20))
    assert seen.lines == ("ONLY=this",)


def test_a_command_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not end in 0 seconds"):
        run("import time; time.sleep(60)", limit_seconds=0.3)
    assert time.monotonic() - began < 10
