"""Join tokens: who comes in by one, who does not, and what becomes of a runner's key."""

import asyncio
import secrets
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model import host_api, join_api
from kohakuriver.model.errors import (
    BadRequest,
    Conflict,
    NodeUnreachable,
    NotAllowed,
    NotFound,
    NotLoggedIn,
    RiverError,
)
from kohakuriver.model.route import Route
from kohakuriver.model.runner_api import Nothing
from kohakuriver.system.secrets import load_secret
from kohakuriver.wire import joining
from kohakuriver.wire.joining import Token
from tests.host.joining.machines import Lab, in_lab, introduction, node_calls, open_lab, settings_in
from tests.manual_clock import ManualClock


def test_a_machine_joins_and_speaks_with_a_key_of_its_own(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        alpha, beta = await lab.token(), await lab.token()
        key, other = await lab.join(alpha, "alpha"), await lab.join(beta, "beta")
        assert key != other and len(key) == 32
        assert (await lab.register("alpha", key)).cluster_id == lab.host.cluster_id
        assert lab.host.keys.to("alpha") == key
        assert [entry["object"] for entry in await lab.house.trail(action="node.join")] == ["node:alpha", "node:beta"]

    in_lab(tmp_path, work)


def test_a_runner_may_sign_only_as_itself(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        key, other = await lab.join(await lab.token(), "alpha"), await lab.join(await lab.token(), "beta")
        shared = load_secret(tmp_path / "cluster_secret")
        for route, request in node_calls("beta"):
            for wrong in (key, shared, bytes(32)):
                with pytest.raises(NotLoggedIn):
                    await lab.peer("beta", wrong).call(route, request)
            with pytest.raises(NotAllowed, match="you are alpha"):
                await lab.peer("alpha", key).call(route, request)
        await lab.register("beta", other)
        with pytest.raises(NotAllowed, match="join token"):  # a runner's key is no join token
            await lab.peer("alpha", key).call(join_api.NODE_JOIN, join_api.Join(hostname="x", nonce="0" * 64))
        for name in ("host:console", "join:1", "host"):
            with pytest.raises(RiverError):
                await lab.peer(name, key).call(join_api.JOIN_TOKEN_LIST, Nothing())

    in_lab(tmp_path, work)


def test_a_join_token_opens_nothing_but_the_door(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        token = await lab.token()
        peer = lab.peer(token.signs_as, token.secret)
        for route, request in node_calls("alpha"):
            with pytest.raises(NotAllowed):
                await peer.call(route, request)
        people: tuple[Route[Nothing, Any], ...] = (host_api.NODE_LIST, join_api.JOIN_TOKEN_LIST)
        for route in people:
            with pytest.raises(NotAllowed, match="needs the role"):
                await peer.call(route, Nothing())

    in_lab(tmp_path, work)


def test_of_fifty_that_join_at_once_with_a_token_for_one_only_one_comes_in(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        token = await lab.token(uses=1)
        found = await asyncio.gather(*(lab.join(token, f"n{n}") for n in range(50)), return_exceptions=True)
        refused = [one for one in found if isinstance(one, NotAllowed)]
        assert len(refused) == 49 and sum(isinstance(one, bytes) for one in found) == 1
        assert all("not good" in str(one) for one in refused)
        three = await lab.token(uses=3)
        found = await asyncio.gather(*(lab.join(three, f"m{n}") for n in range(20)), return_exceptions=True)
        assert sum(isinstance(one, bytes) for one in found) == 3

    in_lab(tmp_path, work)


def test_a_token_expires(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        async with open_lab(settings_in(tmp_path), clock) as lab:
            token, later = await lab.token(ttl_seconds=60), await lab.token(ttl_seconds=62)
            await clock.advance(61)
            with pytest.raises(NotAllowed, match="join-token` makes a new one"):
                await lab.join(token)
            await lab.join(later)

    asyncio.run(run())


def test_a_token_is_taken_back(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        token = await lab.token(uses=5)
        (listed,) = await lab.house.get("/api/join-tokens", lab.admin)
        assert (listed["uses_left"], listed["join_id"]) == (5, str(token.join_id))
        said = await lab.house.ask("DELETE", f"/api/join-tokens/{token.join_id}", lab.admin)
        assert said.status == 200
        with pytest.raises(NotAllowed, match="not good"):
            await lab.join(token)

    in_lab(tmp_path, work)


def test_a_token_of_another_cluster_is_no_token(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_lab(settings_in(tmp_path / "a")) as one, open_lab(settings_in(tmp_path / "b")) as other:
            token = await one.token()
            with pytest.raises(NotLoggedIn):
                await other.join(token)
            with pytest.raises(NotLoggedIn):
                await one.join(replace(token, join_id=token.join_id + 1))
            await one.join(token)

    asyncio.run(run())


def test_an_answer_that_was_lost_is_given_again_without_using_the_token_up(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        token, nonce = await lab.token(uses=1), secrets.token_hex(32)
        key = await lab.join(token, "alpha", nonce=nonce)
        assert await lab.join(token, "alpha", nonce=nonce) == key
        with pytest.raises(NotAllowed, match="not good"):
            await lab.join(token, "beta", nonce=nonce)
        with pytest.raises(NotAllowed, match="not good"):
            await lab.join(token, "alpha")

    in_lab(tmp_path, work)


def test_a_revoked_runner_is_refused_at_once_everywhere_and_sent_nothing(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        token = await lab.token()
        key = await lab.join(token, "alpha")
        await lab.register("alpha", key)
        said = await lab.house.ask("POST", "/api/nodes/alpha/revoke", lab.admin, {"reason": "stolen"})
        assert said.status == 200
        shared = load_secret(tmp_path / "cluster_secret")
        for route, request in node_calls("alpha"):
            for other in (key, shared):
                with pytest.raises(NotLoggedIn):
                    await lab.peer("alpha", other).call(route, request)
        with pytest.raises(NodeUnreachable, match="must join again"):
            lab.host.scheduler.peers.at("alpha", "http://127.0.0.1:1")
        fresh = await lab.join(await lab.token(), "alpha")
        await lab.register("alpha", fresh, "http://127.0.0.1:2")

    in_lab(tmp_path, work)


def test_a_task_is_not_given_to_a_revoked_runner(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        await lab.register("alpha", await lab.join(await lab.token(), "alpha"))
        assert lab.host.registry.get("alpha").closed == ""
        assert (await lab.house.ask("POST", "/api/nodes/alpha/revoke", lab.admin, {})).status == 200
        said = await lab.house.ask("POST", "/api/tasks", lab.admin, {"command": "true"})
        async with asyncio.timeout(60):
            path: str = f"/api/tasks/{said.body['task_ids'][0]}"
            task: dict[str, Any] = {"reason": ""}
            while not task["reason"]:
                task = (await lab.house.ask("GET", path, lab.admin)).body
                await asyncio.sleep(0.01)
        assert (task["status"], task["attempt"]) == ("pending", 0) and "alpha: not heard of yet" in task["reason"]

    in_lab(tmp_path, work)


def test_a_node_that_signs_with_the_clusters_secret_is_revoked_too(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        shared = load_secret(tmp_path / "cluster_secret")
        await lab.register("alpha", shared)
        said = await lab.house.ask("POST", "/api/nodes/alpha/revoke", lab.admin, {})
        assert said.status == 200
        with pytest.raises(NotLoggedIn):
            await lab.register("alpha", shared)
        said = await lab.house.ask("POST", "/api/nodes/nowhere/revoke", lab.admin, {})
        assert said.status == 404

    in_lab(tmp_path, work)


def test_deleting_a_node_ends_its_key(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        key = await lab.join(await lab.token(), "alpha")
        await lab.register("alpha", key)
        said = await lab.house.ask("DELETE", "/api/nodes/alpha", lab.admin)
        assert said.status == 409  # it is online
        lab.host.registry.nodes["alpha"].online = False
        said = await lab.house.ask("DELETE", "/api/nodes/alpha", lab.admin)
        assert said.status == 200
        for route, request in node_calls("alpha"):
            with pytest.raises(NotLoggedIn):
                await lab.peer("alpha", key).call(route, request)

    in_lab(tmp_path, work)


def test_a_second_machine_of_a_living_nodes_name_is_kept_out(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        key = await lab.join(await lab.token(), "alpha")
        await lab.register("alpha", key)
        with pytest.raises(Conflict, match="alive at http://127.0.0.1:1"):
            await lab.join(await lab.token(), "alpha")
        with pytest.raises(Conflict):
            await lab.join(await lab.token(), "alpha", proof="0" * 64)
        with pytest.raises(NotAllowed, match="for node alpha"):
            await lab.join(await lab.token(node="alpha"), "beta")
        await lab.register("alpha", key)

    in_lab(tmp_path, work)


def test_the_machine_itself_and_one_with_a_token_for_the_name_may_take_over(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        key = await lab.join(await lab.token(), "alpha")
        await lab.register("alpha", key)
        nonce = secrets.token_hex(32)
        proof = joining.possession(key, "alpha", nonce)
        fresh = await lab.join(await lab.token(), "alpha", nonce=nonce, proof=proof)
        with pytest.raises(NotLoggedIn):  # the key is new, so the old one is not good any more
            await lab.peer("alpha", key).call(host_api.NODE_REPORT, node_calls("alpha")[2][1])
        await lab.register("alpha", fresh)
        await lab.join(await lab.token(node="alpha"), "alpha")
        with pytest.raises(NotLoggedIn):
            await lab.register("alpha", fresh)

    in_lab(tmp_path, work)


def test_keys_outlive_the_host_and_stand_in_no_database(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_lab(settings_in(tmp_path)) as lab:
            token = await lab.token(uses=2)
            key = await lab.join(token, "alpha")
        async with open_lab(settings_in(tmp_path)) as lab:
            await lab.register("alpha", key)
            await lab.join(token, "beta")
        master = load_secret(tmp_path / "host" / "join_key")
        assert stat.S_IMODE((tmp_path / "host" / "join_key").stat().st_mode) == 0o600
        stolen = b"".join(path.read_bytes() for path in (tmp_path / "host").glob("host.db*"))
        with sqlite3.connect(tmp_path / "host" / "host.db") as db:
            stolen += "\n".join(db.iterdump()).encode()
        db.close()
        for secret in (key, token.secret, master):
            assert secret not in stolen and secret.hex().encode() not in stolen

    asyncio.run(run())


def test_with_the_clusters_secret_turned_off_only_joining_lets_in(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_lab(settings_in(tmp_path)) as lab:
            shared = load_secret(tmp_path / "cluster_secret")
            await lab.register("alpha", shared)
        async with open_lab(settings_in(tmp_path, cluster_secret_allowed=False)) as lab:
            with pytest.raises(NotLoggedIn):
                await lab.register("alpha", shared)
            await lab.register("alpha", await lab.join(await lab.token(), "alpha"))

    asyncio.run(run())


@pytest.mark.parametrize("who", ["nobody", "viewer", "user", "operator"])
def test_only_admins_make_join_tokens(tmp_path: Path, who: str) -> None:
    from kohakuriver.model.access import Role

    async def work(lab: Lab) -> None:
        person = None if who == "nobody" else await lab.house.person("eve", Role[who.upper()])
        for method, path, body in (
            ("POST", "/api/join-tokens", {}),
            ("GET", "/api/join-tokens", None),
            ("DELETE", "/api/join-tokens/1", None),
            ("POST", "/api/nodes/alpha/revoke", {}),
        ):
            assert (await lab.house.ask(method, path, person, body)).status == (401 if person is None else 403)

    in_lab(tmp_path, work)


def test_what_the_host_signs_for_one_runner_is_nothing_to_another(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        key, other = await lab.join(await lab.token(), "alpha"), await lab.join(await lab.token(), "beta")
        assert (lab.host.keys.to("alpha"), lab.host.keys.to("beta")) == (key, other)
        peers = lab.host.scheduler.peers
        before = peers.at("alpha", "http://127.0.0.1:1")
        assert peers.at("alpha", "http://127.0.0.1:1") is before
        assert peers.at("alpha", "http://127.0.0.1:2") is not before

    in_lab(tmp_path, work)


def test_a_token_is_read_exactly_or_not_at_all() -> None:
    token = Token(7, bytes(range(32)), "ab" * 32)
    assert joining.parse_token(f" {token.text}\n") == token
    assert joining.parse_token(replace(token, ca_fingerprint="").text).ca_fingerprint == ""
    good = token.text
    for wrong in ("", "krj", good[:-1], good + "0", good.replace("krj", "krt"), good.replace("_7_", "_x_"),
                  good.replace("_7_", "_-7_"), good + "_00", good.replace("_7_", f"_{'9' * 20}_"), "krj_1_zz"):  # fmt: skip
        with pytest.raises(BadRequest) as caught:
            joining.parse_token(wrong)
        assert token.secret.hex()[:-1] not in str(caught.value)
    assert token.secret.hex() not in repr(token)


@pytest.mark.parametrize("change", ["hostname", "nonce", "cluster_id", "host_nonce"])
def test_a_key_depends_on_everything_that_was_agreed(change: str) -> None:
    agreed = joining.Agreed("c", "n", "1" * 64, "2" * 64)
    names = {"hostname": "hostname", "nonce": "runner_nonce"}
    other = replace(agreed, **{names.get(change, change): "x"})
    secret = bytes(32)
    assert joining.runner_key(secret, agreed) != joining.runner_key(secret, other)
    assert joining.runner_key(secret, agreed) != joining.runner_key(bytes(31) + b"1", agreed)


def test_names_that_no_node_can_have_belong_to_tokens_and_the_console(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        shared = load_secret(tmp_path / "cluster_secret")
        for name in (joining.CONSOLE, "join:1"):
            with pytest.raises((NotLoggedIn, BadRequest)):
                await lab.peer(name, shared).call(host_api.NODE_REGISTER, introduction("alpha"))
        with pytest.raises(NotFound):
            lab.host.registry.get(joining.CONSOLE)

    in_lab(tmp_path, work)
