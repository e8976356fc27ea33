"""`kohakuriver ssh`: fingerprints, the configuration of stock ssh, and words that need no verb."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.client import ssh_files
from kohakuriver.client.commands import with_default_verb
from kohakuriver.model import codec
from kohakuriver.model.settings import ClientSettings
from kohakuriver.model.ssh_api import SshTo
from tests.client.conftest import River
from tests.client.real_host import RealHost, real_host


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealHost]:
    """A host without accounts, to which the environment leads."""
    with real_host(tmp_path, auth_enabled=False) as made:
        monkeypatch.setenv("KOHAKURIVER_HOST", "127.0.0.1")
        monkeypatch.setenv("KOHAKURIVER_PORT", str(made.port))
        yield made


def test_fingerprints_are_those_of_the_files(lab: RealHost, river: River) -> None:
    said = river("ssh", "fingerprint")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", lab.folder / "host/ssh/host_ed25519_key"], capture_output=True, text=True, check=True
    )
    assert said.code == 0 and shown.stdout.split()[1] in said.out and "rsa" in said.out
    assert river("ssh", "fingerprint", "--json").out.startswith('{"port":0')


def test_the_configuration_is_written_once_and_leaves_the_rest_alone(lab: RealHost, river: River, home: Path) -> None:
    own = home / ".ssh/config"
    own.parent.mkdir()
    own.write_text("Host mine\n    Port 99\n")
    assert river("ssh", "config", "--write").code == 0
    first = own.read_text()
    assert river("ssh", "config", "--write").code == 0
    assert own.read_text() == first and first.endswith("Host mine\n    Port 99\n")
    [pinned] = (home / ".kohakuriver/ssh").glob("127-0-0-1-*/known_hosts")
    for file in (own, home / ".kohakuriver/ssh/config", pinned):
        assert file.stat().st_mode & 0o777 == 0o600, file
    assert "@cert-authority *.kohakuriver ssh-ed25519 " in pinned.read_text()
    lines = understood(own, "lab.kohakuriver")
    assert lines["user"] == "root" and lines["stricthostkeychecking"] == "accept-new"
    assert lines["proxycommand"].endswith("ssh proxy %n") and str(home) in lines["userknownhostsfile"]
    other = understood(own, "mine")
    assert other["port"] == "99" and "proxycommand" not in other


def understood(config: Path, name: str) -> dict[str, str]:
    """What stock ssh makes of a name."""
    told = subprocess.run(["ssh", "-F", config, "-G", name], capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in told.splitlines() if " " in line)


def test_several_clusters_stand_side_by_side(lab: RealHost, river: River, home: Path) -> None:
    for cluster in ("north", "south"):
        assert river("--cluster", cluster, "auth", "login", "--host", "127.0.0.1", "--port", str(lab.port)).code == 0
        assert river("--cluster", cluster, "ssh", "config", "--write").code == 0
    found = {}
    for name, cluster in (("lab.north", "north"), ("lab.south", "south"), ("lab", "south")):
        lines = found[name] = understood(home / ".ssh/config", f"{name}.kohakuriver")
        assert lines["proxycommand"].endswith(f"--cluster {cluster} ssh proxy %n"), lines
        assert all(f"/ssh/{cluster}/" in file for file in lines["userknownhostsfile"].split())
    assert (home / ".ssh/config").read_text().count("Include") == 1


@pytest.mark.parametrize(
    ("cluster", "word", "label", "workload"),
    [
        ("north", "lab.north.kohakuriver", "north", "lab"),
        ("north", "lab.south.kohakuriver", "north", "lab.south"),
        ("north", "lab.kohakuriver", "north", "lab"),
        ("north", "lab.north", "north", "lab.north"),
        ("head:8000", "7.head-8000-037758.kohakuriver", "head-8000-037758", "7"),
    ],
)
def test_a_name_of_a_workload_may_hold_the_cluster(cluster: str, word: str, label: str, workload: str) -> None:
    assert ssh_files.label_of(ClientSettings(cluster=cluster)) == label
    assert ssh_files.workload_in(word, label) == workload


def test_no_two_clusters_share_a_label() -> None:
    names = ["head", "Head", "head:8000", "head-8000", "head_8000", "[head]", "[::1]", "[::1]:1", "a.b", "a-b"]
    assert len({ssh_files.label_of(ClientSettings(cluster=name)) for name in names}) == len(names)


def test_checking_is_never_turned_off(lab: RealHost, river: River) -> None:
    said = river("ssh", "config").out
    assert "StrictHostKeyChecking no" not in said and "/dev/null" not in said


def test_without_ssh_the_way_to_it_is_told(lab: RealHost, river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    said = river("ssh", "123")
    assert said.code == 1 and "install OpenSSH's client" in said.err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ssh lab", "ssh to lab"),
        ("--host h ssh lab -- ls", "--host h ssh to lab -- ls"),
        ("ssh to lab", "ssh to lab"),
        ("ssh config --write", "ssh config --write"),
        ("ssh --help", "ssh --help"),
        ("ssh", "ssh"),
        ("task submit ssh lab", "task submit ssh lab"),
        ("task submit -- ssh lab", "task submit -- ssh lab"),
    ],
)
def test_a_verb_that_is_not_typed_is_the_usual_one(typed: str, meant: str) -> None:
    assert with_default_verb(typed.split()) == meant.split()


@pytest.mark.parametrize("name", ["box.kohakuriver", "ada/box.kohakuriver", "box.lab-1f2e3d.kohakuriver"])
def test_a_server_can_prove_whatever_one_calls_a_vps(name: str) -> None:
    assert codec.decode(SshTo, {"task_id": "1", "shown_as": name}).shown_as == name
