"""Installing and removing the services, in made-up root directories and as a plan."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kohakuriver.model.errors import BadRequest, Conflict, NotAllowed, Unavailable
from kohakuriver.system.install import InstallOrder, UninstallOrder, apply, install, look_at, uninstall
from kohakuriver.system.install_plan import (
    Command,
    MakeDirectory,
    Owner,
    RemoveTree,
    RemoveUser,
    Say,
    Target,
    WriteFile,
    config_path,
    plan_install,
    plan_uninstall,
)
from kohakuriver.system.service_units import PROGRAMS, unit_text

NOBODY = 65_534
EXAMPLE = "# HOST_PORT = 8000\n"
BOOTED = Target(systemd_runs=True)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make users and give files away")


@dataclass
class System:
    """A system under a directory of its own, with the .pyz that is to be installed into it."""

    root: Path
    pyz: Path
    lines: list[str] = field(default_factory=list)

    def install(self, program: str = "host", dry_run: bool = False) -> list[str]:
        return self._run(
            InstallOrder(
                program=program, pyz_path=self.pyz, example_config_text=EXAMPLE, root=self.root, dry_run=dry_run
            )
        )

    def uninstall(self, program: str = "host", dry_run: bool = False, purge: bool = False) -> list[str]:
        return self._run(UninstallOrder(program=program, root=self.root, dry_run=dry_run, purge=purge))

    def _run(self, order: InstallOrder | UninstallOrder) -> list[str]:
        lines: list[str] = []
        code = install(order, lines.append) if isinstance(order, InstallOrder) else uninstall(order, lines.append)
        assert code == 0
        return lines

    def users(self) -> dict[str, int]:
        entries = [line.split(":") for line in (self.root / "etc/passwd").read_text().splitlines()]
        return {entry[0]: int(entry[2]) for entry in entries}

    def snapshot(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Everything under the root but the user tables' lock files and copies: mode, owner, group, content."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            told = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(told.st_mode) else b""
            found[str(path.relative_to(self.root))] = (told.st_mode, told.st_uid, told.st_gid, content)
        return found


@pytest.fixture
def system(tmp_path: Path) -> System:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    pyz = tmp_path / "built" / "kohakuriver.pyz"
    pyz.parent.mkdir()
    pyz.write_text("#!/bin/sh\necho I am the program\n")
    return System(root, pyz)


@as_root
def test_the_host_gets_file_link_unit_user_directories_and_settings(system: System) -> None:
    system.install("host")
    root, uid = system.root, system.users()["kohakuriver"]
    placed = root / "usr/local/bin/kohakuriver.pyz"
    assert placed.read_bytes() == system.pyz.read_bytes()
    assert stat.S_IMODE(placed.stat().st_mode) == 0o755
    assert subprocess.check_output([root / "usr/local/bin/kohakuriver"]) == b"I am the program\n"
    assert (root / "etc/systemd/system/kohakuriver-host.service").read_text() == unit_text("host")
    config = root / "etc/kohakuriver/host_config.py"
    assert config.read_text() == EXAMPLE
    assert (config.stat().st_uid, config.stat().st_gid, stat.S_IMODE(config.stat().st_mode)) == (0, uid, 0o640)
    for name in ("var/lib/kohakuriver/host", "var/cache/kohakuriver/host"):
        told = (root / name).stat()
        assert (told.st_uid, told.st_gid, stat.S_IMODE(told.st_mode)) == (uid, uid, 0o700)
        parent = (root / name).parent.stat()
        assert (parent.st_uid, stat.S_IMODE(parent.st_mode)) == (0, 0o755)


@as_root
def test_the_runner_is_roots_and_makes_no_user(system: System) -> None:
    system.install("runner")
    assert list(system.users()) == ["root"]
    config = (system.root / "etc/kohakuriver/runner_config.py").stat()
    assert (config.st_uid, stat.S_IMODE(config.st_mode)) == (0, 0o600)
    assert (system.root / "var/lib/kohakuriver/runner").stat().st_uid == 0


@as_root
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_second_install_changes_nothing_and_says_so(system: System, program: str) -> None:
    system.install(program)
    before = system.snapshot()
    lines = system.install(program)
    assert system.snapshot() == before
    assert all(line.startswith(("nothing to do: ", "systemd does not run")) for line in lines)


@as_root
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_dry_run_prints_the_same_lines_and_does_nothing(system: System, program: str) -> None:
    before = system.snapshot()
    dry = system.install(program, dry_run=True)
    assert system.snapshot() == before
    assert system.install(program) == dry

    after = system.snapshot()
    dry = system.uninstall(program, dry_run=True, purge=True)
    assert system.snapshot() == after
    assert system.uninstall(program, purge=True) == dry


@as_root
def test_a_newer_file_replaces_the_older_one_while_settings_are_kept(system: System) -> None:
    system.install()
    config = system.root / "etc/kohakuriver/host_config.py"
    config.write_text("HOST_PORT = 9000\n")
    unit = system.root / "etc/systemd/system/kohakuriver-host.service"
    unit.write_text("[Unit]\n")
    placed = system.root / "usr/local/bin/kohakuriver.pyz"
    with placed.open("rb") as running:
        system.pyz.write_text("#!/bin/sh\necho newer\n")
        lines = system.install()
        assert running.read() == b"#!/bin/sh\necho I am the program\n"  # who runs from it keeps the old file whole
    assert placed.read_text() == "#!/bin/sh\necho newer\n"
    assert config.read_text() == "HOST_PORT = 9000\n"
    assert unit.read_text() == unit_text("host")
    assert sum(line.startswith("file ") for line in lines) == 2
    assert sorted(os.listdir(placed.parent)) == ["kohakuriver", "kohakuriver.pyz"]


@as_root
def test_a_directory_that_became_readable_for_others_is_closed_again(system: System) -> None:
    system.install()
    state = system.root / "var/lib/kohakuriver/host"
    state.chmod(0o755)
    os.chown(state, 0, 0)
    system.install()
    assert (state.stat().st_uid, stat.S_IMODE(state.stat().st_mode)) == (system.users()["kohakuriver"], 0o700)


@as_root
def test_the_installed_file_may_install_itself_again(system: System) -> None:
    system.install()
    system.pyz = system.root / "usr/local/bin/kohakuriver.pyz"
    content = system.pyz.read_bytes()
    system.install()
    system.install("runner")
    assert system.pyz.read_bytes() == content


@as_root
def test_uninstall_keeps_settings_data_and_user(system: System) -> None:
    system.install()
    data = system.root / "var/lib/kohakuriver/host/host.db"
    data.write_text("precious")
    lines = system.uninstall()
    assert data.read_text() == "precious"
    assert (system.root / "etc/kohakuriver/host_config.py").exists()
    assert "kohakuriver" in system.users()
    for gone in ("usr/local/bin/kohakuriver", "usr/local/bin/kohakuriver.pyz", "var/cache/kohakuriver"):
        assert not os.path.lexists(system.root / gone)
    assert not (system.root / "etc/systemd/system/kohakuriver-host.service").exists()
    assert any("kept:" in line and "--purge" in line for line in lines)


@as_root
@pytest.mark.parametrize("program", PROGRAMS)
def test_uninstall_with_purge_leaves_nothing_of_ours(system: System, program: str) -> None:
    before = set(system.snapshot())
    system.install(program)
    (system.root / f"var/lib/kohakuriver/{program}/logs").mkdir()
    drop_in = system.root / f"etc/systemd/system/kohakuriver-{program}.service.d"
    drop_in.mkdir()
    (drop_in / "override.conf").write_text("[Service]\n")
    system.uninstall(program, purge=True)
    ours = {path for path in set(system.snapshot()) - before if "kohaku" in path}
    assert ours == set() and "kohakuriver" not in system.users()


@as_root
def test_uninstall_may_be_repeated_and_may_come_before_any_install(system: System) -> None:
    before = system.snapshot()
    system.uninstall(purge=True)
    assert system.snapshot() == before
    system.install()
    system.uninstall()
    after = system.snapshot()
    system.uninstall()
    assert system.snapshot() == after


@as_root
def test_the_file_stays_while_the_other_service_needs_it(system: System) -> None:
    system.install("host")
    system.install("runner")
    lines = system.uninstall("host", purge=True)
    assert any(line.startswith("kept for runner") for line in lines)
    assert (system.root / "usr/local/bin/kohakuriver").exists()
    assert (system.root / "var/lib/kohakuriver/runner").is_dir()
    assert (system.root / "etc/kohakuriver/runner_config.py").exists()
    system.uninstall("runner", purge=True)
    assert not os.path.lexists(system.root / "usr/local/bin/kohakuriver")


def test_a_foreign_command_of_the_same_name_is_not_touched_and_nothing_else_is_either(system: System) -> None:
    foreign = system.root / "usr/local/bin/kohakuriver"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("somebody's wrapper")
    before = system.snapshot()
    with pytest.raises(Conflict, match="usr/local/bin/kohakuriver stands in the way"):
        system.install("runner")
    assert system.snapshot() == before


@pytest.mark.parametrize("path", ["etc/kohakuriver/runner_config.py", "var/lib/kohakuriver/runner"])
def test_a_link_where_a_file_or_directory_belongs_is_not_followed(system: System, path: str) -> None:
    place = system.root / path
    place.parent.mkdir(parents=True)
    elsewhere = system.root.parent / "elsewhere"
    elsewhere.mkdir()
    place.symlink_to(elsewhere)
    with pytest.raises(Conflict, match="stands in the way"):
        system.install("runner")
    assert list(elsewhere.iterdir()) == []


def test_a_link_that_leads_out_of_the_root_is_not_followed(system: System) -> None:
    outside = system.root.parent / "outside"
    outside.mkdir()
    (system.root / "var").symlink_to(outside)
    with pytest.raises(Conflict, match="leads out of"):
        system.install("runner")
    assert list(outside.iterdir()) == []


def test_an_empty_root_without_users_is_staged_and_told_what_is_missing(system: System) -> None:
    (system.root / "etc/passwd").unlink()
    lines = system.install("host")
    assert any("no user kohakuriver" in line for line in lines)
    assert (system.root / "etc/systemd/system/kohakuriver-host.service").exists()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that anybody may reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="kohakuriver-") as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@as_root
def test_a_package_can_be_staged_without_roots_rights(open_directory: Path) -> None:
    pyz = open_directory / "kohakuriver.pyz"
    pyz.write_text("program")
    order = InstallOrder(program="host", pyz_path=pyz, example_config_text=EXAMPLE, root=open_directory / "stage")
    plan = plan_install("host", pyz, EXAMPLE, Target(systemd_runs=False, has_users=False))
    lines: list[str] = []
    os.seteuid(NOBODY)
    try:
        apply(plan, order, lines.append)
        apply(plan, order, lines.append)
    finally:
        os.seteuid(0)
    assert (order.root / "usr/local/bin/kohakuriver.pyz").stat().st_uid == NOBODY
    said = {action.text for action in plan if isinstance(action, Say)}
    assert {line for line in lines[len(plan) :] if not line.startswith("nothing to do: ")} == said


@as_root
def test_an_existing_group_of_the_name_is_used(system: System) -> None:
    with (system.root / "etc/group").open("a") as groups:
        groups.write("kohakuriver:x:777:\n")
    system.install("host")
    assert (system.root / "var/lib/kohakuriver/host").stat().st_gid == 777


@as_root
def test_an_action_that_fails_says_what_could_not_be_done(system: System) -> None:
    (system.root / "usr").write_text("a file where a directory belongs")
    with pytest.raises(Unavailable, match="could not do this: file /usr/local/bin/kohakuriver.pyz"):
        system.install("runner")
    (system.root / "etc/group").unlink()
    (system.root / "etc/group").mkdir()
    with pytest.raises(Unavailable, match="of: useradd .*group"):
        system.install("host")


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (UninstallOrder(program="client"), "program must be one of host, runner"),
        (UninstallOrder(program="../x"), "program must be one of host, runner"),
        (UninstallOrder(program="host", root=Path("relative")), "root must be an absolute path"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order: UninstallOrder, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        uninstall(order, print)


def test_only_a_built_file_can_be_installed(system: System) -> None:
    system.pyz.unlink()
    with pytest.raises(BadRequest, match=r"only the built kohakuriver\.pyz"):
        system.install()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    yield


@pytest.mark.usefixtures("nobody")
def test_a_real_install_is_roots_matter_but_anybody_may_see_what_it_would_do(system: System) -> None:
    with pytest.raises(NotAllowed, match="sudo"):
        uninstall(UninstallOrder(program="host"), print)
    order = InstallOrder(program="host", pyz_path=system.pyz, example_config_text=EXAMPLE, dry_run=True)
    lines: list[str] = []
    assert install(order, lines.append) == 0
    assert any("user kohakuriver" in line for line in lines)


def test_where_systemd_runs_the_service_is_enabled_and_restarted_only_if_it_runs_and_changed() -> None:
    plan = plan_install("runner", Path("/x.pyz"), EXAMPLE, BOOTED)
    commands = [action for action in plan if isinstance(action, Command)]
    assert [(" ".join(command.words), command.after_change) for command in commands] == [
        ("systemctl daemon-reload", False),
        ("systemctl enable kohakuriver-runner.service", False),
        ("systemctl try-restart kohakuriver-runner.service", True),
    ]
    assert isinstance(plan[-1], Say) and "systemctl restart kohakuriver-runner.service" in plan[-1].text
    assert config_path("runner") in plan[-1].text


def test_where_systemd_does_not_run_the_person_is_told_what_to_type() -> None:
    plan = plan_install("host", Path("/x.pyz"), EXAMPLE, Target(systemd_runs=False))
    assert not any(isinstance(action, Command) for action in plan)
    assert isinstance(plan[-1], Say) and "systemctl enable --now kohakuriver-host.service" in plan[-1].text


def test_uninstall_stops_the_service_before_it_takes_anything_away() -> None:
    plan = plan_uninstall("host", BOOTED, purge=True)
    assert plan[0] == Command(
        ("systemctl", "disable", "--now", "kohakuriver-host.service"),
        while_exists="/etc/systemd/system/kohakuriver-host.service",
    )
    assert plan.index(RemoveTree("/var/lib/kohakuriver/host")) < plan.index(RemoveUser("kohakuriver"))


def test_only_a_purge_removes_what_a_person_wrote() -> None:
    for program in PROGRAMS:
        plan = plan_uninstall(program, BOOTED, purge=False)
        removed = {action.path for action in plan if isinstance(action, RemoveTree) and not action.only_if_empty}
        assert removed == {f"/var/cache/kohakuriver/{program}"}
        assert not any(isinstance(action, RemoveUser) for action in plan)


def test_no_directory_above_roots_service_belongs_to_anyone_else() -> None:
    for program in PROGRAMS:
        for action in plan_install(program, Path("/x.pyz"), EXAMPLE, BOOTED):
            if isinstance(action, MakeDirectory) and action.owner != Owner():
                assert action.path.endswith("/host")


def test_settings_are_the_only_file_that_an_install_does_not_replace() -> None:
    plan = plan_install("host", Path("/x.pyz"), EXAMPLE, BOOTED)
    precious = [action.path for action in plan if isinstance(action, WriteFile) and action.precious]
    assert precious == ["/etc/kohakuriver/host_config.py"]


def test_the_facts_are_read_from_the_root_that_is_meant(system: System) -> None:
    assert look_at(system.root, "host") == Target(systemd_runs=False)
    unit = system.root / "etc/systemd/system/kohakuriver-runner.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("")
    (system.root / "etc/passwd").unlink()
    assert look_at(system.root, "host") == Target(systemd_runs=False, has_users=False, other_programs=("runner",))
