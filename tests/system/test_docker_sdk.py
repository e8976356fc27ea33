"""What the SDK's client leaves behind."""

import gc
import os
from pathlib import Path

import pytest

from kohakuriver.system.docker_sdk import connect


def test_a_daemon_that_is_away_leaves_no_socket_open(tmp_path: Path) -> None:
    gc.disable()  # the failure goes round in a circle of frames and errors, which only the collector would end
    try:
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            with pytest.raises(OSError, match="No such file"):
                connect(str(tmp_path / "docker.sock"), 5.0)
        assert os.listdir("/proc/self/fd") == before
    finally:
        gc.enable()
