"""`kohakuriver vps …` against a made-up host: what is asked, what is shown, what is waited for."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model import vps_api as api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.lifecycle import Desired, Status
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.vps import WAIT_COMMAND, Snapshot, SnapshotState, SshKeyMode, Vps
from tests.client.conftest import River
from tests.client.made_up_host import FIRST, MadeUpHost

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
S = Status


def vps(**changes: Any) -> Vps:
    """A made-up VPS."""
    made = Vps(
        task_id=Snowflake(FIRST),
        batch_id=Snowflake(FIRST),
        name="box",
        owner="ada",
        status=S.RUNNING,
        command=WAIT_COMMAND[0],
        arguments=list(WAIT_COMMAND[1:]),
        attempt=1,
        home="alpha",
        assigned_node="alpha",
        submitted_at="2024-05-01T10:00:00.000Z",
        started_at="2024-05-01T10:00:01.000Z",
    )
    return replace(made, **changes)


def snapshot(timestamp: int = 1764100000, **changes: Any) -> Snapshot:
    return replace(Snapshot(task_id=Snowflake(FIRST), timestamp=timestamp, size_bytes=5 * 10**6), **changes)


@pytest.fixture(autouse=True)
def _answers(host: MadeUpHost) -> None:
    host.answer(api.VPS_CREATE, lambda asked: api.NewVps(vps=vps(name=asked.name, status=S.PENDING)))
    host.answer(api.VPS_FIND, _found)
    host.answer(api.VPS_SHOW, vps())
    host.answer(api.VPS_LIST, [vps(), vps(status=S.STOPPED, name=None)])


def _found(asked: api.FindVps) -> api.VpsId:
    if asked.name not in ("box", "ada/box"):
        raise NotFound(f"there is no VPS {asked.name}")
    return api.VpsId(task_id=Snowflake(FIRST))


def test_a_vps_is_made_as_it_was_asked_for(host: MadeUpHost, river: River, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(f"{KEY} ada@laptop\n")
    told = river("vps", "create", "--name", "box", "-c", "4", "-m", "8G", "-t", "alpha", "--key", f"{tmp_path}/key.pub")
    assert (told.code, told.out) == (0, f"{FIRST}\n")
    (asked,) = host.requests(api.VPS_CREATE)
    assert (asked.name, asked.required_cores, asked.required_memory_bytes, asked.target) == (
        "box",
        4,
        8 * 10**9,
        "alpha",
    )
    assert (asked.ssh_key_mode, asked.ssh_public_key) == (SshKeyMode.UPLOAD, f"{KEY} ada@laptop")


def test_a_generated_key_goes_to_a_file_of_its_own_or_is_shown_once(
    host: MadeUpHost, river: River, tmp_path: Path
) -> None:
    host.answer(api.VPS_CREATE, api.NewVps(vps=vps(), private_key="-----BEGIN\nsecret\n"))
    place = str(tmp_path / "id")
    told = river("vps", "create", "--ssh-key-mode", "generate", "--save-key", place)
    assert told.out == f"{FIRST}\n" and "secret" not in told.err
    assert Path(place).read_text() == "-----BEGIN\nsecret\n" and stat.S_IMODE(os.stat(place).st_mode) == 0o600
    again = river("vps", "create", "--ssh-key-mode", "generate", "--save-key", place)
    assert again.code == 2 and "File exists" in again.err and len(host.requests(api.VPS_CREATE)) == 1
    told = river("vps", "create", "--ssh-key-mode", "generate")
    assert told.out == f"{FIRST}\n" and "secret\n" in told.err
    assert river("vps", "create", "--save-key", f"{place}2").code == 2
    host.answer(api.VPS_CREATE, _refuse)
    assert river("vps", "create", "--ssh-key-mode", "generate", "--save-key", f"{place}3").code == 5
    assert not os.path.exists(f"{place}3")


def test_secrets_and_logins_come_from_files_and_never_from_arguments(
    host: MadeUpHost, river: River, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("planted\n")
    (tmp_path / "login").write_text("ada:planted\n")
    secrets = ("-e", "SEED=1", "-e", f"TOKEN=@{tmp_path}/token", "--registry-login-file", f"{tmp_path}/login")
    assert river("vps", "create", *secrets).code == 0
    (asked,) = host.requests(api.VPS_CREATE)
    assert (asked.env_vars, asked.secret_env) == ({"SEED": "1"}, {"TOKEN": "planted"})
    assert asked.registry_login == "ada:planted" and asked.idempotency_key


def _refuse(asked: Any) -> Any:
    raise Conflict("name: ada has a VPS 'box' already")


def test_names_are_good_for_ids_everywhere(host: MadeUpHost, river: River) -> None:
    host.answer(api.VPS_STOP, vps(desired=Desired.STOP))
    for word in ("box", "ada/box", str(FIRST)):
        told = river("vps", "stop", word)
        assert (told.code, told.out) == (0, f"{FIRST}  running (stopping)\n")
    assert [asked.task_id for asked in host.requests(api.VPS_STOP)] == [FIRST] * 3
    assert len(host.requests(api.VPS_FIND)) == 2
    assert river("vps", "stop", "other").code == 3
    told = river("vps", "stop", "no name")
    assert told.code == 2 and "neither an id nor a name" in told.err


def test_waiting_ends_when_it_is_true(host: MadeUpHost, river: River) -> None:
    host.answer(api.VPS_STOP, vps(desired=Desired.STOP))
    host.in_turn(api.VPS_SHOW, vps(desired=Desired.STOP), vps(status=S.STOPPED))
    told = river("vps", "stop", "--wait", "box")
    assert (told.code, told.out) == (0, f"{FIRST}  stopped\n")
    host.answer(api.VPS_RESTART, vps(desired=Desired.STOP, again=True))
    host.in_turn(api.VPS_SHOW, vps(status=S.PENDING), vps(status=S.STOPPED, error_message="no room for a snapshot"))
    told = river("vps", "restart", "--wait", "--snapshot", "1764100000", "box")
    assert told.code == 1 and "box: no room for a snapshot" in told.err
    assert host.requests(api.VPS_RESTART)[0].snapshot == 1764100000


def test_a_delete_waits_until_the_node_has_taken_everything_away(host: MadeUpHost, river: River) -> None:
    host.answer(api.VPS_DELETE, vps(status=S.STOPPED, desired=Desired.KILL))
    assert river("vps", "delete", "box").out == f"{FIRST}  stopped (deleting)\n"
    host.in_turn(api.VPS_SHOW, vps(status=S.STOPPED, desired=Desired.KILL), vps(status=S.KILLED))
    told = river("vps", "delete", "--wait", "box")
    assert (told.code, told.out) == (0, f"{FIRST}  killed\n")


def test_create_waits_until_it_runs_or_cannot(host: MadeUpHost, river: River) -> None:
    host.in_turn(api.VPS_SHOW, vps(status=S.ASSIGNING), vps())
    assert river("vps", "create", "--wait").code == 0
    host.in_turn(api.VPS_SHOW, vps(status=S.FAILED, error_message="no such image"))
    told = river("vps", "create", "--wait")
    assert told.code == 1 and "no such image" in told.err


def test_lists_and_details_are_shown(host: MadeUpHost, river: River) -> None:
    told = river("vps", "list")
    assert told.code == 0 and "box" in told.out and "stopped" in told.out and "WAITING" not in told.out
    host.answer(api.VPS_SHOW, vps(lease_seconds=3600, expires_at="2099-01-01T00:00:00Z", notice="it stops at noon"))
    told = river("vps", "status", "box")
    assert "box" in told.out and "alpha" in told.out and "it stops at noon" in told.out and "trap" not in told.out


def test_a_snapshot_is_waited_for_and_a_failure_is_told(host: MadeUpHost, river: River) -> None:
    taking = snapshot(state=SnapshotState.TAKING, message="before")
    host.answer(api.VPS_SNAPSHOT_TAKE, taking)
    host.in_turn(api.VPS_SNAPSHOTS, [taking], [snapshot(message="before")])
    told = river("vps", "snapshot", "create", "box", "-m", "before")
    assert (told.code, told.out) == (0, "1764100000\n")
    assert host.requests(api.VPS_SNAPSHOT_TAKE)[0].message == "before"
    host.in_turn(api.VPS_SNAPSHOTS, [snapshot(state=SnapshotState.FAILED, error="no room")])
    told = river("vps", "snapshot", "create", "box")
    assert told.code == 1 and "it was not saved: no room" in told.err
    host.in_turn(api.VPS_SNAPSHOTS, [])
    assert "restarted meanwhile" in river("vps", "snapshot", "create", "box").err
    assert river("vps", "snapshot", "create", "--no-wait", "box").code == 0


def test_snapshots_are_listed_and_deleted(host: MadeUpHost, river: River) -> None:
    host.answer(api.VPS_SNAPSHOTS, [snapshot(automatic=True), snapshot(1764100099, message="mine")])
    told = river("vps", "snapshot", "list", "box")
    assert "automatic" in told.out and "mine" in told.out and "5.0M" in told.out
    host.answer(api.VPS_SNAPSHOT_DELETE, Nothing())
    assert river("vps", "snapshot", "delete", "box", "1764100099").code == 0
    (asked,) = host.requests(api.VPS_SNAPSHOT_DELETE)
    assert (asked.task_id, asked.timestamp) == (FIRST, 1764100099)


def test_people_are_let_in_and_out_by_name(host: MadeUpHost, river: River) -> None:
    bob = api.Assignment(user_id=Snowflake(7), user="bob", assigned_by="ada", assigned_at="2024-05-01T10:00:00.000Z")
    host.answer(api.VPS_ASSIGN, [bob])
    host.answer(api.VPS_ASSIGNMENTS, [bob])
    host.answer(api.VPS_UNASSIGN, [])
    assert "bob" in river("vps", "assign", "box", "bob").out
    assert host.requests(api.VPS_ASSIGN)[0].user == "bob"
    assert river("vps", "unassign", "box", "eve").code == 3
    assert river("vps", "unassign", "box", "bob").code == 0
    assert host.requests(api.VPS_UNASSIGN)[0].user_id == 7
