"""Accounts from the command line, against a real host: from its first start to a login, tokens, invitations, groups."""

import io
import json
import os
import signal
import stat
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.host.auth import passwords
from tests.client.conftest import Outcome, River, spawn
from tests.client.real_host import RealHost, real_host
from tests.client.terminal import on_terminal

PASSWORD = "correct horse battery"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealHost]:
    """A host at its first start, to which the environment leads."""
    monkeypatch.setattr(passwords.Passwords.__init__, "__defaults__", (4, 64))
    with real_host(tmp_path) as made:
        monkeypatch.setenv("KOHAKURIVER_HOST", "127.0.0.1")
        monkeypatch.setenv("KOHAKURIVER_PORT", str(made.port))
        yield made


class Person:
    """Types commands, with lines on standard input."""

    def __init__(self, river: River, monkeypatch: pytest.MonkeyPatch, lab: RealHost) -> None:
        self._river, self._monkeypatch, self.lab = river, monkeypatch, lab

    def __call__(self, *words: str, lines: str = "") -> Outcome:
        self._monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return self._river(*words)

    def well(self, *words: str, lines: str = "") -> str:
        """What a command prints that goes well."""
        told = self(*words, lines=lines)
        assert told.code == 0, told
        return told.out

    def first_admin(self, name: str = "ada") -> None:
        file = str(self.lab.first_secret)
        self.well("auth", "register", name, "--bootstrap-file", file, "--password-stdin", lines=f"{PASSWORD}\n")

    def invited(self, *options: str) -> str:
        return self.well("auth", "invite", "create", *options).strip()

    def in_another_home(self, folder: Path) -> None:
        folder.mkdir()
        self._monkeypatch.setenv("HOME", str(folder))


@pytest.fixture
def person(river: River, monkeypatch: pytest.MonkeyPatch, lab: RealHost) -> Person:
    return Person(river, monkeypatch, lab)


def test_a_missing_login_says_the_command_that_fixes_it(person: Person) -> None:
    told = person("task", "list")
    assert (told.code, told.out) == (4, "")
    assert told.err == "kohakuriver: log in first: kohakuriver auth login\n"
    told = person("auth", "login", "ada", "--password-stdin", lines="whatever\n")
    assert told.code == 5 and "auth register NAME --bootstrap-file FILE" in told.err


def test_a_new_host_is_used_after_one_command(person: Person, home: Path) -> None:
    person.first_admin()
    assert person.well("task", "list").startswith("TASK")
    file = home / ".kohakuriver" / "auth.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not person.lab.first_secret.exists()
    told = person.well("auth", "status")
    assert "ada (admin)" in told and "token" in told and "not encrypted" in told


def test_a_login_is_asked_for_on_the_terminal_and_never_shown(person: Person, home: Path) -> None:
    person.first_admin()
    person.well("auth", "logout")
    with on_terminal("auth", "login", "ada") as terminal:
        terminal.read_until(lambda painted: b"Password: " in painted)
        os.write(terminal.master, f"{PASSWORD}\n".encode())
        code, painted = terminal.ended()
    assert code == 0 and b"logged in as ada (admin)" in painted
    assert PASSWORD.encode() not in painted
    assert person.well("task", "list").startswith("TASK")


def test_who_is_terminated_while_he_is_asked_has_his_echo_back(person: Person) -> None:
    with on_terminal("auth", "register", "ada", "--bootstrap-file", str(person.lab.first_secret)) as terminal:
        terminal.read_until(lambda painted: b"New password: " in painted)
        assert not termios.tcgetattr(terminal.master)[3] & termios.ECHO
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended()[0] == 143
        assert termios.tcgetattr(terminal.master)[3] & termios.ECHO


def test_passwords_that_differ_make_no_account(person: Person) -> None:
    with on_terminal("auth", "register", "ada", "--bootstrap-file", str(person.lab.first_secret)) as terminal:
        terminal.read_until(lambda painted: b"New password: " in painted)
        os.write(terminal.master, b"one password\n")
        terminal.read_until(lambda painted: b"again: " in painted)
        os.write(terminal.master, b"two passwords\n")
        code, painted = terminal.ended()
    assert code == 2 and b"the two passwords differ" in painted
    assert person.lab.first_secret.exists()


def test_without_a_terminal_the_option_is_named(person: Person) -> None:
    process = spawn("auth", "register", "ada", start_new_session=True)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 2 and b"give --invitation-file FILE" in told


def test_logging_out_ends_the_token_at_the_host(person: Person, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    person.first_admin()
    token = _kept(home)["token"]
    person.well("auth", "logout")
    assert _kept(home)["token"] == ""
    assert person("task", "list").code == 4
    monkeypatch.setenv("KOHAKURIVER_TOKEN", token)
    told = person("task", "list")
    assert told.code == 4 and "log in again: kohakuriver auth login" in told.err and token not in told.err
    monkeypatch.delenv("KOHAKURIVER_TOKEN")
    assert person("auth", "logout").code == 4


def test_logging_in_again_ends_the_login_before(person: Person, home: Path) -> None:
    person.first_admin()
    before = _kept(home)["token"]
    person.well("auth", "login", "--password-stdin", lines=f"{PASSWORD}\n")  # the name is known from before
    assert _kept(home)["token"] != before
    assert len(json.loads(person.well("auth", "token", "list", "--json"))) == 1


def test_a_wrong_password_changes_nothing(person: Person, home: Path) -> None:
    person.first_admin()
    before = _kept(home)
    told = person("auth", "login", "--password-stdin", lines="something else\n")
    assert told.code == 4 and "wrong" in told.err and "something else" not in told.err
    assert _kept(home) == before


def test_a_token_for_a_program_is_printed_alone_and_works_from_the_environment_and_standard_input(
    person: Person, monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path
) -> None:
    person.first_admin()
    token = person.well("auth", "token", "create", "--name", "night", "--role", "viewer", "--days", "2").strip()
    assert token.startswith("krt_") and "\n" not in token
    listed = json.loads(person.well("auth", "token", "list", "--json"))
    assert [(one["name"], one["role"]) for one in listed if not one["current"]] == [("night", "viewer")]
    assert token not in person.well("auth", "token", "list")
    person.in_another_home(tmp_path / "robot")
    monkeypatch.setenv("KOHAKURIVER_TOKEN", token)
    assert "ada (viewer)" in person.well("auth", "status")
    monkeypatch.delenv("KOHAKURIVER_TOKEN")
    person.well("auth", "login", "--token-stdin", lines=f"{token}\n")
    assert "ada (viewer)" in person.well("auth", "status")
    told = person("auth", "login", "--token-stdin", lines="krt_1_nonsense\n")
    assert told.code == 4 and "nonsense" not in told.err


def test_tokens_are_revoked_one_by_one_or_all(person: Person) -> None:
    person.first_admin()
    for name in ("a", "b", "c"):
        person.well("auth", "token", "create", "--name", name)
    ids = {one["name"]: one["token_id"] for one in json.loads(person.well("auth", "token", "list", "--json"))}
    person.well("auth", "token", "revoke", ids["a"], ids["b"])
    assert {one["name"] for one in json.loads(person.well("auth", "token", "list", "--json"))} >= {"c"}
    assert person("auth", "token", "revoke").code == 2
    assert person("auth", "token", "revoke", "abc").code == 2
    assert person("auth", "token", "revoke", ids["a"]).code == 3
    assert person.well("auth", "token", "revoke", "--all") == "2 ended\n"
    assert person("task", "list").code == 4


def test_an_invited_person_comes_in_with_one_command(person: Person, tmp_path: Path, home: Path) -> None:
    person.first_admin()
    person.well("auth", "group", "set", "vision", "--max-gpus", "2", "--max-memory", "8G")
    code = person.invited("--role", "user", "--group", "vision", "--hours", "5")
    assert code.startswith("kri_")
    listed = json.loads(person.well("auth", "invite", "list", "--json"))
    assert [(one["role"], one["groups"], one["uses_left"]) for one in listed] == [("user", ["vision"], 1)]
    person.in_another_home(tmp_path / "bob")
    words = ("auth", "register", "bob", "--invitation-file", "-", "--password-stdin")
    person.well(*words, lines=f"{code}\n{PASSWORD}\n")
    assert "bob (user)" in person.well("auth", "status") and "vision" in person.well("auth", "status")
    assert person(*words, lines=f"{code}\n{PASSWORD}\n").code == 4  # it was good for one
    assert person("auth", "user", "list").code == 4


def test_an_invitation_is_taken_back(person: Person) -> None:
    person.first_admin()
    person.invited("--role", "viewer")
    (listed,) = json.loads(person.well("auth", "invite", "list", "--json"))
    person.well("auth", "invite", "revoke", listed["invitation_id"])
    assert json.loads(person.well("auth", "invite", "list", "--json")) == []


def test_accounts_are_changed_by_name(
    person: Person, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.first_admin()
    code = person.invited("--role", "user")
    person.in_another_home(tmp_path / "bob")
    words = ("auth", "register", "bob", "--invitation-file", "-", "--password-stdin")
    person.well(*words, lines=f"{code}\n{PASSWORD}\n")
    monkeypatch.setenv("HOME", str(home))
    assert "operator" in person.well("auth", "user", "set", "bob", "--role", "operator")
    assert "disabled" in person.well("auth", "user", "set", "bob", "--disable")
    monkeypatch.setenv("HOME", str(tmp_path / "bob"))
    assert person("task", "list").code == 4
    monkeypatch.setenv("HOME", str(home))
    person.well("auth", "user", "set", "bob", "--enable", "--new-password", "--password-stdin", lines="another one\n")
    monkeypatch.setenv("HOME", str(tmp_path / "bob"))
    person.well("auth", "login", "bob", "--password-stdin", lines="another one\n")
    person.well("auth", "password", "--password-stdin", lines="another one\nthe third one\n")
    person.well("auth", "login", "bob", "--password-stdin", lines="the third one\n")
    monkeypatch.setenv("HOME", str(home))
    assert person("auth", "user", "set", "bob").code == 2
    assert person("auth", "user", "set", "nobody", "--role", "user").code == 3
    assert person("auth", "user", "set", "bob", "--role", "node").code == 2
    person.well("auth", "user", "delete", "bob")
    assert "bob" not in person.well("auth", "user", "list")
    assert person("auth", "user", "delete", "ada").code == 5  # the last admin


def test_groups_are_made_changed_and_deleted(person: Person) -> None:
    person.first_admin()
    person.well("auth", "group", "set", "vision", "--max-gpus", "2")
    person.well("auth", "group", "set", "vision", "--max-cores", "8")
    (group,) = json.loads(person.well("auth", "group", "list", "--json"))
    assert (group["name"], group["max_cores"], group["max_gpus"]) == ("vision", 8, None)
    person.well("auth", "group", "delete", "vision")
    assert json.loads(person.well("auth", "group", "list", "--json")) == []


def test_the_trail_is_read_by_page_and_exported_whole(person: Person) -> None:
    person.first_admin()
    person("auth", "login", "--password-stdin", lines="wrong\n")
    told = person.well("audit")
    assert told.startswith("AT") and "auth.register" in told and "failed" in told
    assert "auth.register" not in person.well("audit", "--user", "nobody")
    assert "auth.register" in person.well("audit", "--object", "user:ada", "--since", "2h")
    lines = [json.loads(line) for line in person.well("audit", "--export").splitlines()]
    assert {"auth.register", "auth.login", "audit.export"} <= {line["action"] for line in lines}
    assert person("audit", "--since", "yesterday").code == 2


def test_no_secret_is_ever_shown(person: Person, home: Path, tmp_path: Path) -> None:
    secret = person.lab.first_secret.read_text().strip()
    words = ("auth", "register", "ada", "--bootstrap-file", str(person.lab.first_secret), "--password-stdin", "--json")
    shown = person.well(*words, lines=f"{PASSWORD}\n")
    token = _kept(home)["token"]
    shown += person.well("auth", "status", "--json") + person.well("auth", "cluster", "list", "--json")
    shown += person.well("auth", "token", "list", "--json") + person.well("audit", "--export")
    for planted in (secret, token, token.split("_", 2)[2], PASSWORD):
        assert planted not in shown


def test_a_host_without_accounts_needs_no_login(tmp_path: Path, river: River) -> None:
    with real_host(tmp_path, auth_enabled=False) as made:
        told = river("auth", "login", "--cluster", "here", "--host", "127.0.0.1", "--port", str(made.port))
        assert told.code == 0 and "accounts are off" in told.err
        assert river("--cluster", "here", "task", "list").code == 0
        assert river("task", "list").code == 0  # the one that was entered last


def test_several_clusters_are_told_apart_by_name(
    person: Person, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.first_admin()
    monkeypatch.delenv("KOHAKURIVER_HOST")
    monkeypatch.delenv("KOHAKURIVER_PORT")
    address = f"127.0.0.1:{person.lab.port}"
    with real_host(tmp_path / "other") as other:
        words = ("--cluster", "other", "--host", "127.0.0.1", "--port", str(other.port), "--password-stdin")
        file = str(other.first_secret)
        person.well("auth", "register", "eve", *words, "--bootstrap-file", file, lines=f"{PASSWORD}\n")
        assert "eve (admin)" in person.well("auth", "status")
        assert "ada (admin)" in person.well("auth", "status", "--cluster", address)
        assert "ada (admin)" in person.well("auth", "status", "--port", str(person.lab.port))
        person.well("auth", "cluster", "use", address)
        assert "ada (admin)" in person.well("auth", "status")
        monkeypatch.setenv("KOHAKURIVER_CLUSTER", "other")
        assert "eve (admin)" in person.well("auth", "status")
        told = person("task", "list", "--cluster", "third")
        assert told.code == 3 and "kohakuriver auth login --cluster third --host HOST" in told.err
        person.well("auth", "cluster", "forget", "other")
        assert person("task", "list").code == 3


def _kept(home: Path) -> dict[str, str]:
    """The one cluster that is remembered."""
    (kept,) = json.loads((home / ".kohakuriver" / "auth.json").read_text())["clusters"].values()
    found: dict[str, str] = kept
    return found
