"""`python -m tests`: the fast suite in one process for each processor, then the real suites, one test after the other."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOW = {
    "fast": ("one process for each processor", ["--numprocesses=auto", "--dist=worksteal"]),
    "real": ("one after the other", []),
}
OK, FAILED, NONE_CHOSEN = WHOLE = 0, 1, 5  # as pytest exits when it was not broken off


def main(arguments: list[str]) -> int:
    """Run both halves, or the one that is named, with these arguments of pytest; return the exit code for both.

    When the first is broken off, that is all.
    """
    # Pytest hears it, too, and we wait until it has cleaned up.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    codes: list[int] = []
    told: list[str] = []
    for suite in [each for each in HOW if f"--suite={each}" in arguments] or HOW:
        code, outcome = run(suite, arguments)
        codes.append(code)
        told.append(outcome)
        if code not in WHOLE:
            break
    print("\n".join(told))
    return both(codes)


def run(suite: str, arguments: list[str]) -> tuple[int, str]:
    """The exit code of one half, and a line that says what came of it and how long it took."""
    about, options = HOW[suite]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        tally = Path(scratch, "tally")
        command = [sys.executable, "-m", "pytest", f"--suite={suite}", f"--tally={tally}", *options, *arguments]
        code = subprocess.run(command, check=False, env=environment()).returncode
        outcome = tally.read_text() if tally.exists() else "none ran"
    end = "in" if code in WHOLE else "and then broken off after"
    return code, f"    {suite} tests, {about}: {outcome} {end} {time.monotonic() - began:.1f} s"


def environment() -> dict[str, str]:
    """Ours, in which Python keeps what it has compiled: else each of many processes compiles everything anew."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def both(codes: list[int]) -> int:
    """The exit code of the halves together: that one of them had no test is only a failure when the other had none."""
    return next((code for code in codes if code not in (OK, NONE_CHOSEN)), min(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
