"""Of a container whose start was cut off nothing stays, and nobody else is hit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from kohakuriver.system.container_shim import end_shim

SHIM = "import os, subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); os.read(0, 1)"


def spawn(script: str, *names: str) -> "subprocess.Popen[bytes]":
    """A process with these words on its command line."""
    command = [sys.executable, "-c", script, *names]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def disguised(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A process that looks like a shim."""
    program = folder / "containerd-shim-runc-v2"
    if not program.exists():
        program.symlink_to(sys.executable)
    return subprocess.Popen([program, "-c", SHIM, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def child_of(shim: "subprocess.Popen[bytes]") -> int:
    assert shim.stdout is not None
    return int(shim.stdout.readline())


def test_a_shim_goes_with_its_children_and_other_shims_stay(tmp_path: Path) -> None:
    mine, others, bystander = disguised(tmp_path, "-id", "abc"), disguised(tmp_path, "-id", "xyz"), spawn(SHIM, "abc")
    children = [child_of(each) for each in (mine, others, bystander)]
    try:
        end_shim("abc")
        assert mine.wait(30) == -signal.SIGKILL
        assert (others.poll(), bystander.poll()) == (None, None)
        os.kill(children[1], 0)
    finally:
        for pid in children[1:]:
            os.kill(pid, signal.SIGKILL)
        for each in (others, bystander):
            each.kill()
            each.communicate()
    mine.communicate(timeout=30)  # comes to an end because the child let go of the pipe, too


def test_without_a_shim_there_is_nothing_to_do(tmp_path: Path) -> None:
    end_shim("abc", proc=tmp_path)
    (tmp_path / "7").mkdir()
    end_shim("abc", proc=tmp_path)
