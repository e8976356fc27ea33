"""The two units as systemd itself judges them, without running them."""

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from kohakuriver.system.install import InstallOrder, install
from kohakuriver.system.install_plan import CACHE_DIR, PYZ, STATE_DIR, USER, config_path
from kohakuriver.system.service_units import PROGRAMS, unit_name, unit_text

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
EXPOSURE_ALLOWED = {"host": 3.0, "runner": 6.0}


class RepeatedKeys(dict[str, object]):
    """Keeps the values of a key that stands several times, joined by a space, as systemd does for lists."""

    def __setitem__(self, key: str, value: object) -> None:
        if isinstance(value, list) and key in self:
            value = [f"{' '.join(map(str, self[key]))} {value[0]}"]  # type: ignore[call-overload]
        super().__setitem__(key, value)


def service(program: str) -> dict[str, str]:
    parser = RawConfigParser(dict_type=RepeatedKeys, strict=False, delimiters=("=",), comment_prefixes=("#",))  # type: ignore[arg-type]
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit_text(program))
    return dict(parser["Service"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root into which both services were really installed, beside this machine's own units."""
    pyz = tmp_path / "kohakuriver.pyz"
    pyz.write_text("#!/bin/sh\n")
    root = tmp_path / "root"
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    for program in PROGRAMS:
        install(InstallOrder(program=program, pyz_path=pyz, example_config_text="", root=root), lambda line: None)
    return root


def verify(root: Path, program: str) -> tuple[int, str]:
    """The exit code of systemd's check of an installed unit, and everything that it prints."""
    words = ["systemd-analyze", "verify", "--man=no", f"--root={root}", unit_name(program)]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


@needs_systemd
@pytest.mark.parametrize("program", PROGRAMS)
def test_systemd_finds_nothing_to_say_about_an_installed_unit(root: Path, program: str) -> None:
    assert verify(root, program) == (0, "")


@needs_systemd
def test_systemd_does_find_a_word_that_it_does_not_know(root: Path) -> None:
    unit = root / "etc/systemd/system" / unit_name("host")
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in verify(root, "host")[1]


@needs_systemd
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_service_is_exposed_no_more_than_allowed(root: Path, program: str) -> None:
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            root / "etc/systemd/system" / unit_name(program),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None and float(level[1]) <= EXPOSURE_ALLOWED[program]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_unit_and_the_installer_mean_the_same_places(program: str) -> None:
    told = service(program)
    assert told["ExecStart"] == f"{PYZ} {program} --config {config_path(program)}"
    assert told["Environment"].split() == [
        f"HOME={STATE_DIR}/{program}",
        f"SHIV_ROOT={CACHE_DIR}/{program}",
        "PYTHONFAULTHANDLER=1",
    ]
    assert told["StateDirectory"] == told["CacheDirectory"] == f"kohakuriver/{program}"
    assert told["StateDirectoryMode"] == told["CacheDirectoryMode"] == "0700"
    assert told.get("User", "root") == (USER if program == "host" else "root")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_service_is_watched_and_always_comes_back(program: str) -> None:
    told = service(program)
    assert (told["Type"], told["Restart"]) == ("notify", "always")
    assert int(told["WatchdogSec"]) > 0
    assert "StartLimitIntervalSec=0" in unit_text(program)


def test_workloads_outlive_the_runner_and_are_not_limited_by_its_unit() -> None:
    told = service("runner")
    assert (told["KillMode"], told["Delegate"], told["OOMPolicy"]) == ("process", "yes", "continue")
    assert told["TasksMax"] == "infinity"
    for inherited in ("MemoryMax", "MemoryDenyWriteExecute", "PrivateTmp", "PrivateDevices", "ProtectClock"):
        assert inherited not in told


def test_the_topmost_folder_of_units_holds_just_these_two() -> None:
    folder = Path(__file__).parents[2] / "systemd"
    assert sorted(path.name for path in folder.iterdir()) == sorted(map(unit_name, PROGRAMS))
