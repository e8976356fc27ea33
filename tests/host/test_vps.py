"""VPS over HTTP: they are made, stopped, started again where their files are, found again, deleted."""

from pathlib import Path
from typing import Any

from kohakuriver.host.services.task_scheduler import ABSENCE_GRACE_SECONDS
from kohakuriver.model.errors import EngineFailed
from kohakuriver.model.runner_api import Execute, Kill, VpsOrder
from tests.host.rig import House, MadeUpRunner, play

V = "/api/vps"


async def made(house: House, **wish: Any) -> str:
    """The id of a new VPS."""
    answer = await house.post(V, wish)
    return str(answer["vps"]["task_id"])


async def becomes(house: House, vps_id: str, *statuses: str, attempt: int = 0) -> Any:
    async def look() -> Any:
        found = await house.get(f"{V}/{vps_id}")
        return found if found["status"] in statuses and attempt in (0, found["attempt"]) else None

    return await house.until(look, f"{vps_id} to become {statuses}")


def last_order(runner: MadeUpRunner) -> VpsOrder:
    orders = [each for each in runner.orders if isinstance(each, Execute)]
    assert orders[-1].vps is not None
    return orders[-1].vps


def test_a_vps_runs_stops_and_starts_again_where_its_files_are(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha, beta = await house.runner("alpha", cores=2), await house.runner("beta", cores=8)
        vps = await made(house, name="box", required_cores=2, target="alpha")
        found = await becomes(house, vps, "running")
        assert (found["home"], found["task_type"], found["name"]) == ("alpha", "vps", "box")
        assert last_order(alpha) == VpsOrder(is_new=True)
        assert (await house.post(f"{V}/{vps}/stop"))["desired"] == "stop"
        found = await becomes(house, vps, "stopped")
        assert (found["desired"], found["exit_code"], found["error_message"]) == ("run", 0, None)
        await house.post(f"{V}/{vps}/restart")
        found = await becomes(house, vps, "running", attempt=2)
        assert found["assigned_node"] == "alpha" and last_order(alpha) == VpsOrder(is_new=False)
        assert not beta.orders

    play(tmp_path, work)


def test_an_answer_that_was_lost_may_be_asked_for_again(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        wish = {"name": "box", "idempotency_key": "k-1", "ssh_key_mode": "generate"}
        first, again = await house.post(V, wish), await house.post(V, wish)
        assert again["vps"]["task_id"] == first["vps"]["task_id"] and len(await house.get(V)) == 1
        assert again["private_key"] not in (None, first["private_key"]), "the first one is kept nowhere"
        told = await house.get(f"{V}/{again['vps']['task_id']}")
        assert told["ssh_public_key"] == again["vps"]["ssh_public_key"] != first["vps"]["ssh_public_key"]
        status, message = await house.refused("POST", V, wish | {"name": "other"})
        assert status == 409 and message.startswith("idempotency_key: ")

    play(tmp_path, work)


def test_its_secrets_go_along_with_every_start_and_its_login_with_the_first(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha = await house.runner("alpha", cores=2)
        wish = {"registry_image": "x", "secret_env": {"KEY": "planted"}, "registry_login": "ada:planted"}
        answer = await house.post(V, wish)
        vps = str(answer["vps"]["task_id"])
        await becomes(house, vps, "running")
        await house.post(f"{V}/{vps}/stop")
        stopped = await becomes(house, vps, "stopped")
        assert stopped["secret_names"] == ["KEY"] and "planted" not in str((answer, stopped, await house.get(V)))
        await house.post(f"{V}/{vps}/restart")
        await becomes(house, vps, "running", attempt=2)
        orders = [(each.secret_env, each.registry_login) for each in alpha.orders if isinstance(each, Execute)]
        assert orders == [({"KEY": "planted"}, "ada:planted"), ({"KEY": "planted"}, "")]
        twice = await house.refused("POST", V, {"env_vars": {"A": "1"}, "secret_env": {"A": "2"}})
        assert twice == (400, "secret_env: 'A' stands in env_vars, too")

    play(tmp_path, work)


def test_without_a_target_it_stays_all_the_same_where_it_first_ran(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.runner("alpha", cores=8)
        vps = await made(house, required_cores=2)
        await becomes(house, vps, "running")
        await house.post(f"{V}/{vps}/stop")
        await becomes(house, vps, "stopped")
        await house.runner("beta", cores=64)
        filler = await house.submit("stay", required_cores=7, targets=["alpha"])
        await house.becomes(filler, "running")
        assert (await house.post(f"{V}/{vps}/restart"))["status"] == "pending"

        async def waits() -> Any:
            found = await house.get(f"{V}/{vps}")
            return found["status"] == "pending" and found["reason"] and "alpha: 2 cores asked" in found["reason"]

        await house.until(waits, "it to wait for its node")
        assert (await house.post(f"{V}/{vps}/stop"))["status"] == "stopped", "nobody has to wait with it"

    play(tmp_path, work)


def test_a_restart_of_one_that_runs_stops_it_first_and_keeps_the_chosen_snapshot(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha = await house.runner("alpha")
        vps = await made(house)
        await becomes(house, vps, "running")
        said = await house.refused("POST", f"{V}/{vps}/restart", {"snapshot": 77})
        assert said == (404, f"VPS {vps} has no snapshot 77")
        assert (await house.get(f"{V}/{vps}"))["desired"] == "run", "it is not stopped for nothing"
        chosen = (await house.post(f"{V}/{vps}/snapshots", {}))["timestamp"]
        await house.post(f"{V}/{vps}/restart", {"snapshot": chosen})
        await becomes(house, vps, "running", attempt=2)
        assert last_order(alpha) == VpsOrder(is_new=False, restore=chosen)
        assert [each.spare for each in alpha.orders if isinstance(each, Kill)] == [chosen]
        assert (await house.get(f"{V}/{vps}"))["restore"] is None
        await house.post(f"{V}/{vps}/restart")
        await becomes(house, vps, "running", attempt=3)
        assert last_order(alpha) == VpsOrder(is_new=False)

    play(tmp_path, work)


def test_a_deleted_vps_is_gone_only_when_its_node_has_taken_everything_away(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha = await house.runner("alpha")
        running, stopped = await made(house, name="a", required_cores=1), await made(house, name="b", required_cores=1)
        for vps in (running, stopped):
            await becomes(house, vps, "running")
        await house.post(f"{V}/{stopped}/stop")
        await becomes(house, stopped, "stopped")
        for vps in (running, stopped):
            assert (await house.ask("DELETE", f"{V}/{vps}"))[1]["desired"] == "kill"
            await becomes(house, vps, "killed")
        assert alpha.kept == {}
        assert await house.history(running) == ["submitted", "placed", "started", "asked to kill", "stopped", "killed"]
        assert (await house.refused("POST", f"{V}/{running}/restart"))[0] == 409
        assert (await house.refused("DELETE", f"{V}/{running}"))[0] == 409
        await made(house, name="a")

    play(tmp_path, work)


def test_one_that_never_ran_is_deleted_at_once_and_cannot_be_stopped(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        vps = await made(house, required_cores=1)
        status, message = await house.refused("POST", f"{V}/{vps}/stop")
        assert status == 409 and "delete it" in message
        assert (await house.ask("DELETE", f"{V}/{vps}"))[1]["status"] == "killed"

    play(tmp_path, work)


def test_a_node_that_comes_back_with_a_lost_vps_has_it_running_again(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha = await house.runner("alpha")
        vps = await made(house)
        await becomes(house, vps, "running")
        await house.passes(60)
        assert (await becomes(house, vps, "lost"))["home"] == "alpha"
        assert (await house.refused("POST", f"{V}/{vps}/restart"))[0] == 409
        alpha.begin_another_life()
        await alpha.register()
        await becomes(house, vps, "running", attempt=1)

    play(tmp_path, work)


def test_a_lost_one_that_is_to_stop_stops_when_its_node_is_back(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha = await house.runner("alpha")
        vps, forgotten = await made(house, required_cores=1), await made(house, required_cores=1)
        await becomes(house, vps, "running")
        await becomes(house, forgotten, "running")
        await house.passes(60)
        for each in (vps, forgotten):
            await becomes(house, each, "lost")
            await house.post(f"{V}/{each}/stop")
        alpha.held.pop((int(forgotten), 1))
        alpha.begin_another_life()
        await alpha.register()
        await becomes(house, vps, "stopped")
        await house.passes(ABSENCE_GRACE_SECONDS, alpha)
        await becomes(house, forgotten, "stopped")

    play(tmp_path, work)


def test_a_refused_restart_leaves_it_stopped_and_says_why(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        alpha = await house.runner("alpha")
        vps = await made(house)
        await becomes(house, vps, "running")
        await house.post(f"{V}/{vps}/stop")
        await becomes(house, vps, "stopped")
        alpha.refusal = EngineFailed("no room for a snapshot")
        await house.post(f"{V}/{vps}/restart")
        found = await becomes(house, vps, "stopped", attempt=2)
        assert found["error_message"] == "no room for a snapshot" and found["home"] == "alpha"
        alpha.refusal = None
        await house.post(f"{V}/{vps}/restart")
        assert (await becomes(house, vps, "running"))["error_message"] is None

    play(tmp_path, work)


def test_pause_and_resume(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.runner("alpha")
        vps = await made(house)
        await becomes(house, vps, "running")
        await house.post(f"{V}/{vps}/pause")
        await becomes(house, vps, "paused")
        await house.post(f"{V}/{vps}/resume")
        await becomes(house, vps, "running")
        await house.post(f"{V}/{vps}/pause")
        await becomes(house, vps, "paused")
        await house.post(f"{V}/{vps}/stop")
        await becomes(house, vps, "stopped")

    play(tmp_path, work)


def test_tasks_and_vps_are_told_apart(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.runner("alpha")
        vps, task = await made(house, required_cores=1), await house.submit("stay")
        await becomes(house, vps, "running")
        assert [each["task_id"] for each in await house.get(V)] == [vps]
        assert [each["task_id"] for each in await house.get(f"{V}/my?status=running")] == [vps]
        assert await house.get(f"{V}?status=stopped") == []
        assert [each["task_id"] for each in await house.get("/api/tasks")] == [task]
        assert "is a command, not a VPS" in (await house.refused("GET", f"{V}/{task}"))[1]
        assert "is a VPS" in (await house.refused("POST", f"/api/tasks/{vps}/kill"))[1]
        assert (await house.refused("GET", f"{V}/77"))[0] == 404

    play(tmp_path, work)


def test_names_are_unique_among_the_living_of_one_owner_and_good_for_an_id(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        vps = await made(house, name="box")
        status, message = await house.refused("POST", V, {"name": "box"})
        assert status == 409 and message.startswith("name: local has a VPS 'box' already")
        assert (await house.get(f"{V}/find?name=box"))["task_id"] == vps
        assert (await house.get(f"{V}/find?name=local/box"))["task_id"] == vps
        assert (await house.refused("GET", f"{V}/find?name=other/box"))[1] == "there is no VPS other/box"
        for bad in ("12", "a b", "a+b", "a@b", "", "A", "-a", "a/b"):
            assert (await house.refused("POST", V, {"name": bad}))[1].startswith("name: ")

    play(tmp_path, work)


def test_a_generated_key_is_shown_once_and_its_public_half_kept(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        answer = await house.post(V, {"ssh_key_mode": "generate"})
        assert answer["private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        assert answer["vps"]["ssh_public_key"].startswith("ssh-ed25519 AAAA")
        assert "PRIVATE" not in str(await house.rows())
        uploaded = await house.post(V, {"ssh_key_mode": "upload", "ssh_public_key": answer["vps"]["ssh_public_key"]})
        assert uploaded["private_key"] is None
        for wrong in ({"ssh_key_mode": "upload"}, {"ssh_public_key": answer["vps"]["ssh_public_key"]}):
            assert (await house.refused("POST", V, wrong))[1].startswith("ssh_public_key: ")
        assert (await house.post(V, {"ssh_key_mode": "disabled"}))["vps"]["ssh_public_key"] is None

    play(tmp_path, work)


def test_only_docker_can_be_had_and_that_is_said(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        status, message = await house.refused("POST", V, {"vps_backend": "qemu"})
        assert (status, message) == (400, "vps_backend: only `docker` can be had so far, not 'qemu'")

    play(tmp_path, work)


def test_snapshots_are_asked_of_the_node_that_has_them(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        vps = await made(house)
        assert await house.get(f"{V}/{vps}/snapshots") == []
        assert (await house.refused("POST", f"{V}/{vps}/snapshots", {}))[0] == 409
        await house.runner("alpha")
        await becomes(house, vps, "running")
        taken = await house.post(f"{V}/{vps}/snapshots", {"message": "before the upgrade"})
        assert (taken["state"], taken["timestamp"]) == ("taking", 1)
        (saved,) = await house.get(f"{V}/{vps}/snapshots")
        assert (saved["state"], saved["message"]) == ("ready", "before the upgrade")
        assert (await house.ask("DELETE", f"{V}/{vps}/snapshots/1"))[0] == 200
        assert await house.get(f"{V}/{vps}/snapshots") == []
        trail = await house.host.db.read(lambda tx: [row[0] for row in tx.execute("SELECT action FROM audit")])
        assert trail[-2:] == ["vps.snapshot.create", "vps.snapshot.delete"]
        await house.passes(60)
        status, message = await house.refused("GET", f"{V}/{vps}/snapshots")
        assert status == 502 and message == f"the snapshots of VPS {vps} are on node alpha, which is away"

    play(tmp_path, work)
