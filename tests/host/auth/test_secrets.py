"""Secrets that were planted appear nowhere but where they are needed."""

import asyncio
import logging
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from kohakuriver.host.store import task_secrets, tasks
from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import Event
from kohakuriver.model.runner_api import EXECUTE, Execute, Nothing
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.model.task import TaskSpec
from kohakuriver.runner.attempt import Accepted
from kohakuriver.runner.container_spec import Site, build
from tests.host.auth.house import PASSWORD, House, Person, in_house

PLANTED = "planted-hunter2-value"
ENV = {"WANDB_API_KEY": PLANTED}


async def everything_said(house: House, who: list[Person]) -> str:
    """What the host answers to these people, whatever they may read."""
    found = []
    for person in who:
        ids = [task["task_id"] for task in await house.get("/api/tasks", person)]
        paths = ["/api/tasks", "/api/tasks/my", "/api/tasks/pending-approval", "/api/nodes", "/api/health", "/metrics"]
        paths += [f"/api/tasks/{task_id}{tail}" for task_id in ids for tail in ("", "/history", "/stdout")]
        paths += ["/api/audit", "/api/audit/export", "/api/auth/tokens", "/api/auth/sessions", "/api/auth/users"]
        found += [str((await house.ask("GET", path, person)).body) for path in paths]
    return "\n".join(found)


def test_a_secret_variable_is_told_by_name_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(house: House) -> None:
        bob, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        looker = await house.person("v", Role.VIEWER)
        said = await house.submit(bob, secret_env=ENV, env_vars={"SEED": "1"})
        task_id = said.body["task_ids"][0]
        seen = (await house.get("/api/tasks/pending-approval", boss))[0]
        assert seen["secret_names"] == ["WANDB_API_KEY"] and seen["env_vars"] == {"SEED": "1"}
        steps = [("POST", f"/api/tasks/{task_id}/approve", boss), ("POST", f"/api/tasks/{task_id}/kill", bob)]
        for method, path, who in steps:
            assert PLANTED not in str((await house.ask(method, path, who)).body)
        assert PLANTED not in await everything_said(house, [bob, boss, looker])

    with caplog.at_level(logging.DEBUG):
        in_house(tmp_path, work)
    assert PLANTED not in caplog.text


@pytest.mark.parametrize(
    "broken",
    [
        {"secret_env": {"A": PLANTED * 10_000}},
        {"secret_env": {"not a name": PLANTED}},
        {"secret_env": {"A": [PLANTED]}},
        {"secret_env": {"A": PLANTED + "\0"}},
        {"secret_env": {"A": PLANTED}, "env_vars": {"A": "1"}},
        {"secret_env": PLANTED},
        {"registry_login": PLANTED},
        {"registry_login": f"ada:{PLANTED}\n"},
        {"registry_login": f"ada:{PLANTED}", "privileged": True},
        {"secret_env": {"A": PLANTED}, "targets": ["nowhere"]},
        {"secret_env": {"A": PLANTED}, "privileged": True},
    ],
)
def test_a_refusal_does_not_repeat_it(tmp_path: Path, broken: dict[str, object]) -> None:
    async def work(house: House) -> None:
        bob = await house.person("bob", Role.USER)
        said = await house.submit(bob, **broken)
        assert said.status in (400, 403) and PLANTED not in str(said.body)
        rows = await house.host.db.read(lambda tx: tx.execute("SELECT count(*) FROM task_secrets").fetchone()[0])
        assert rows == 0

    in_house(tmp_path, work)


def test_a_login_for_a_pull_is_told_to_nobody_and_kept_no_longer_than_the_task_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(house: House) -> None:
        bob, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        task_id = await house.task(bob, registry_image="private/x", registry_login=f"ada:{PLANTED}")
        assert (await house.ask("POST", f"/api/tasks/{task_id}/approve", boss)).status == 200
        assert PLANTED not in await everything_said(house, [bob, boss])

        def run(tx: sqlite3.Connection) -> list[str]:
            kept = []
            for event in (Event.PLACED, Event.STARTED):
                kept.append(task_secrets.login_of(tx, Snowflake(int(task_id))))
                tasks.move(tx, tasks.get(tx, Snowflake(int(task_id))), tasks.Change(event), 1.0)
            return [*kept, task_secrets.login_of(tx, Snowflake(int(task_id)))]

        assert PLANTED in written(tmp_path)
        assert await house.host.db.write(run) == [f"ada:{PLANTED}", f"ada:{PLANTED}", ""]
        await house.host.db.scrub()
        assert PLANTED not in written(tmp_path), "what is deleted is gone from the disk"

    with caplog.at_level(logging.DEBUG):
        in_house(tmp_path, work)
    assert PLANTED not in caplog.text


def written(folder: Path) -> str:
    """All bytes that the host's database and the log beside it hold."""
    return "".join(path.read_bytes().decode("latin-1") for path in (folder / "host").glob("host.db*"))


@pytest.mark.parametrize("end", ["kill", "reject"])
def test_it_is_kept_until_the_task_has_ended_and_no_longer(tmp_path: Path, end: str) -> None:
    async def work(house: House) -> None:
        bob, boss = await house.person("bob", Role.USER), await house.person("ann", Role.ADMIN)
        task_id = await house.task(bob, secret_env=ENV)
        other = await house.task(bob, secret_env={"B": "kept"})

        async def kept() -> list[tuple[int, str]]:
            rows = await house.host.db.read(lambda tx: tx.execute("SELECT * FROM task_secrets").fetchall())
            return [tuple(row) for row in rows]

        assert len(await kept()) == 2
        await house.ask("POST", f"/api/tasks/{other}/approve", boss)
        assert (await house.ask("POST", f"/api/tasks/{task_id}/{end}", boss)).status == 200
        assert await kept() == [(int(other), '{"B":"kept"}')]

    in_house(tmp_path, work)


def test_it_reaches_the_runner_and_there_only_the_environment_of_the_task() -> None:
    request = Execute(task_id=1, attempt=1, owner="bob", spec=TaskSpec(command="x"), secret_env=ENV)  # type: ignore[arg-type]
    site = Site(RunnerSettings(), "alpha", "cluster", "", "/tmp")
    spec = build(Accepted(request, Path("/logs"), 1000), site, ())
    assert spec.env["WANDB_API_KEY"] == PLANTED
    assert PLANTED not in str((spec.labels, spec.command, spec.name, spec.image))


def test_the_host_sends_it_with_the_attempt(tmp_path: Path) -> None:
    from kohakuriver.wire.call import Peer
    from tests.host.auth.test_quotas import a_node_joins

    sent: list[Execute] = []

    async def call(self: Peer, route: object, request: object, timeout_seconds: float = 0) -> object:
        if route is EXECUTE and isinstance(request, Execute):
            sent.append(request)
        return Nothing()

    async def work(house: House) -> None:
        await a_node_joins(house)
        boss = await house.person("ann", Role.ADMIN)
        await house.task(boss, secret_env=ENV)
        for _ in range(200):
            if sent:
                break
            await asyncio.sleep(0.02)
        assert sent[0].secret_env == ENV and PLANTED not in str(sent[0].spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Peer, "call", call)
        in_house(tmp_path, work)


def test_passwords_tokens_and_codes_are_in_no_log_no_answer_not_in_the_trail_and_not_on_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = [PASSWORD, "another password", "a very long admin secret"]

    async def work(house: House) -> None:
        boss = await house.person("ann", Role.ADMIN)
        code = await house.invitation(boss)
        said = await house.register("bob", code)
        token = said.body["token"]
        bob = Person("bob", boss.user_id, {"Authorization": f"Bearer {token}"})
        session = (await house.log_in("bob")).headers["Set-Cookie"].partition("=")[2].partition(";")[0]
        body = {"old_password": PASSWORD, "new_password": "another password"}
        assert (await house.ask("POST", "/api/auth/password", bob, body)).status == 200
        await house.log_in("bob", PASSWORD)
        ticket = (await house.ask("POST", "/api/auth/tickets", bob, {"path": "/ws/events"})).body["ticket"]
        await house.ask("GET", "/api/auth/me", {"X-Admin-Token": "a very long admin secret"})
        await house.ask("GET", "/api/auth/me", {"X-Admin-Token": "a very wrong admin secret"})
        join = (await house.ask("POST", "/api/join-tokens", boss, {})).body["token"].split("_")[2]
        secrets.extend([code, token, session, ticket, join, join[:16], "a very wrong admin secret"])
        secrets.append(boss.headers["Authorization"][7:])
        with suppress(FileNotFoundError):
            secrets.append((tmp_path / "host" / "first_admin_secret").read_text().strip())
        said_to_all = await everything_said(house, [boss, bob])
        trail, on_disk = str(await house.trail()), written(tmp_path)
        for secret in secrets:
            assert secret not in on_disk and secret.encode().hex() not in on_disk
            assert secret not in said_to_all and secret not in trail and secret not in repr(house.host.auth.accounts)

    with caplog.at_level(logging.DEBUG):
        in_house(tmp_path, work, admin_secret="a very long admin secret")
    for secret in secrets:
        assert secret not in caplog.text
