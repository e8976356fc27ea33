"""The units and the installer on a real, booted systemd, with a small stand-in for the program."""

import json
import shutil
import time
import zipapp
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kohakuriver
from tests.systemd.booted import Booted, booted_systemd, lacking

PYZ = "/srv/kohakuriver.pyz"
PATIENCE_SECONDS = 30.0
pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=f"no systemd can be booted without {', '.join(lacking())}"),
]


def build_stand_in(target: Path, workshop: Path) -> None:
    """Zip the real package, with its units inside as in the built file, around a main of the tests' own."""
    source = Path(kohakuriver.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, workshop / "kohakuriver", ignore=ignored)
    shutil.copytree(source.parent / "systemd", workshop / "kohakuriver/systemd", ignore=ignored)
    shutil.copy(Path(__file__).with_name("stand_in.py"), workshop / "__main__.py")
    target.parent.mkdir(parents=True)
    zipapp.create_archive(workshop, target, interpreter="/usr/bin/env python3")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    folder = tmp_path_factory.mktemp("systemd")
    build_stand_in(folder / f"into-root{PYZ}", folder / "workshop")
    with booted_systemd(folder) as system:
        yield system


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)


@pytest.fixture
def installed(system: Booted, request: pytest.FixtureRequest) -> Iterator[tuple[Booted, str]]:
    """A service that was installed, started, and is taken away again afterwards."""
    program: str = request.param
    system.run(PYZ, "install", program)
    system.run("systemctl", "restart", f"kohakuriver-{program}")
    yield system, program
    workload = int(system.inside(f"/var/lib/kohakuriver/{program}/workload.pid").read_text())
    system.run(PYZ, "uninstall", program)
    system.run("sh", "-c", f"kill -9 {workload} || true")


def of_itself(system: Booted, program: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(system.inside(f"/var/lib/kohakuriver/{program}/self.json").read_text())
    return told


@pytest.mark.parametrize("installed", ["host", "runner"], indirect=True)
def test_an_installed_service_starts_tells_that_it_is_ready_and_has_only_its_own_rights(
    installed: tuple[Booted, str],
) -> None:
    system, program = installed
    unit = f"kohakuriver-{program}"
    assert system.run("systemctl", "is-enabled", unit) == "enabled"
    assert system.run("systemctl", "is-active", unit) == "active"
    assert system.shows(unit, "StatusText") == "stand-in is ready"
    uid = int(system.run("id", "-u", "kohakuriver")) if program == "host" else 0
    assert of_itself(system, program) == {
        "uid": uid,
        "home": f"/var/lib/kohakuriver/{program}",
        "cwd": f"/var/lib/kohakuriver/{program}",
        "shiv_root": f"/var/cache/kohakuriver/{program}",
        "config": "# example\n",
        "writes_shiv_root": True,
        "writes_etc": False,
        "writes_usr": False,
        "sees_home": program == "runner",
        "sees_boot_id": True,
        "notify_left": False,
    }


@pytest.mark.parametrize("installed", ["host", "runner"], indirect=True)
def test_a_service_that_no_longer_finds_itself_alive_is_restarted(installed: tuple[Booted, str]) -> None:
    system, program = installed
    unit = f"kohakuriver-{program}"
    drop_in = system.inside(f"/etc/systemd/system/{unit}.service.d")
    drop_in.mkdir()
    (drop_in / "quick.conf").write_text("[Service]\nWatchdogSec=1\nRestartSec=0\n")
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "restart", unit)
    time.sleep(3)  # three times what systemd waits: only a fed watchdog keeps it alive
    assert system.shows(unit, "NRestarts") == "0"
    system.inside(f"/var/lib/kohakuriver/{program}/sick").touch()
    eventually(lambda: (system.shows(unit, "NRestarts"), system.shows(unit, "ActiveState")) == ("1", "active"))
    journal = system.journal(unit)
    assert "Watchdog timeout" in journal
    assert "most recent call first" in journal  # where every thread stood


@pytest.mark.parametrize("installed", ["runner"], indirect=True)
def test_workloads_outlive_a_runner_that_is_stopped_killed_or_restarted(installed: tuple[Booted, str]) -> None:
    system, program = installed
    unit = f"kohakuriver-{program}"
    workload = system.inside(f"/var/lib/kohakuriver/{program}/workload.pid").read_text()

    def lives() -> bool:
        return system.run("ps", "-o", "args=", "-p", workload, check=False) == "sleep 600"

    assert lives()
    system.run("systemctl", "restart", unit)
    assert lives()
    system.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit)
    eventually(lambda: system.shows(unit, "NRestarts") == "1")
    assert lives()
    system.run("systemctl", "stop", unit)
    assert system.run("systemctl", "is-active", unit, check=False) == "inactive"
    assert lives()
    system.run("systemctl", "start", unit)
    assert lives()


@pytest.mark.parametrize("installed", ["host"], indirect=True)
def test_a_newer_file_is_running_right_after_its_install(installed: tuple[Booted, str]) -> None:
    system, _ = installed
    before = system.shows("kohakuriver-host", "MainPID")
    lines = system.run(PYZ, "install", "host").splitlines()
    assert system.shows("kohakuriver-host", "MainPID") == before
    assert any(line.startswith("nothing to do: run systemctl try-restart") for line in lines)
    system.inside("/usr/local/bin/kohakuriver.pyz").write_bytes(b"an older one")
    system.run(PYZ, "install", "host")
    assert system.shows("kohakuriver-host", "MainPID") not in (before, "0")


def test_uninstall_leaves_a_system_that_knows_nothing_of_us(system: Booted) -> None:
    system.run(PYZ, "install", "host")
    system.run("systemctl", "start", "kohakuriver-host")
    system.run(PYZ, "uninstall", "host")
    assert system.shows("kohakuriver-host", "LoadState") == "not-found"
    assert "no such user" in system.run("id", "kohakuriver", check=False)
    found = system.run("find", "/etc", "/usr/local", "/var", "-xdev", "-name", "*kohakuriver*")
    assert found == ""
