"""The directory of a throw-away cluster: one owner at a time, gone afterwards, and found again after a kill."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kohakuriver.model.errors import Conflict
from kohakuriver.programs.dev_directory import PREFIX, RECORD_NAME, Record, dev_directory, leftovers, read_record

RECORD = Record("c1", ["node1", "node2"], "process", "/run/docker.sock")
TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_fresh_directory_is_private_and_goes_with_the_cluster(temporary: Path) -> None:
    with dev_directory(None) as directory:
        assert directory.parent == temporary and directory.stat().st_mode & 0o777 == 0o700
        (directory / "host").mkdir()
        RECORD.write(directory)
    assert list(temporary.iterdir()) == []


def test_a_directory_that_was_asked_for_stays(temporary: Path) -> None:
    with dev_directory(temporary / "a" / "mine") as directory:
        RECORD.write(directory)
    assert read_record(temporary / "a" / "mine") == RECORD


def test_two_clusters_cannot_use_one_directory(temporary: Path) -> None:
    with dev_directory(temporary / "mine"), pytest.raises(Conflict, match="another dev cluster uses"):
        dev_directory(temporary / "mine").__enter__()
    with dev_directory(temporary / "mine"):
        pass


def test_what_a_killed_cluster_left_is_found_with_its_record_and_then_deleted(temporary: Path) -> None:
    script = (
        "import sys, tempfile, time; from kohakuriver.programs.dev_directory import *; tempfile.tempdir = sys.argv[1]\n"
        "with dev_directory(None) as directory:\n"
        "    Record('c1', ['node1', 'node2'], 'process', '/run/docker.sock').write(directory)\n"
        "    print(directory, flush=True); time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    command = [sys.executable, "-c", script, str(temporary)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        directory = Path(child.stdout.readline().strip())
        with leftovers() as found:
            assert found == []  # it lives
        child.send_signal(signal.SIGKILL)
    assert directory.exists()
    with leftovers() as found:
        assert found == [(directory, RECORD)]
    assert not directory.exists()


def test_what_cannot_be_ours_is_left_alone(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir(mode=0o700)
    (temporary / f"{PREFIX}link").symlink_to(temporary / "elsewhere")
    (temporary / f"{PREFIX}open").mkdir()
    (temporary / f"{PREFIX}open").chmod(0o777)
    (temporary / f"{PREFIX}file").write_text("")
    with leftovers() as found:
        assert found == []
    assert len(list(temporary.iterdir())) == 4 and list((temporary / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"cluster_id": 3})])
def test_a_broken_record_is_no_record(temporary: Path, text: str) -> None:
    (temporary / RECORD_NAME).write_text(text)
    assert read_record(temporary) is None
