"""Who is let in at the SSH port, where to, and who is not; with stock OpenSSH."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.model.access import Role
from tests.host.ssh.doors import Door, at_the_door, open_door

DENIED = "Permission denied"


def test_a_person_is_in_his_workload_by_its_id(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        done = await door.ssh("bob", task, "echo out; echo err >&2; cat; exit 7", stdin=b"in\0\xff")
        assert (done.code, done.out, done.err) == (7, b"out\nin\0\xff", "err\n")
        assert [wanted.user for wanted in door.here.wanted] == [""]
        assert (await door.ssh("bob", f"{task}+ada", "true")).code == 0
        assert door.here.wanted[-1].user == "ada"

    at_the_door(tmp_path, work)


def test_what_serves_is_made_for_the_first_who_comes_and_he_waits_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_door(tmp_path, visited=False) as door, asyncio.timeout(60):
            assert door.keeper._proxy is None
            reader, writer = await asyncio.open_connection("127.0.0.1", door.keeper.port)
            assert (await reader.readline()).startswith(b"SSH-2.0-KohakuRiver")
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())


def test_a_person_jumps_to_his_workload_although_no_ssh_server_is_inside(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        done = await door.jump("bob", f"ada@{task}", "cat; exit 3", stdin=b"hello")
        assert (done.code, done.out, done.err) == (3, b"hello", "")
        assert door.here.wanted[-1].user == "ada" and door.here.reached == [(int(task), "127.0.0.1", 22)]

    at_the_door(tmp_path, work)


def test_to_the_workloads_own_ssh_server_the_way_is_open_all_through(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-its-own " + await reader.readline())
            writer.close()

        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            door.here.ports[22] = server.sockets[0].getsockname()[1]
            done = await door.ssh("bob", "bob", "-W", f"{task}.kohakuriver:22", stdin=b"hello\n")
        assert done.out == b"SSH-2.0-its-own hello\n"

    at_the_door(tmp_path, work)


def test_a_person_reaches_ports_in_his_workload(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.read()).upper())  # so it must hear that the other side has ended
            writer.close()

        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        async with await asyncio.start_server(shout, "127.0.0.1", 0) as server:
            door.here.ports[8080] = server.sockets[0].getsockname()[1]
            assert (await door.ssh("bob", task, "-W", "127.0.0.1:8080", stdin=b"abc" * 9999)).out == b"ABC" * 9999
            assert (await door.jump("bob", f"root@{task}", "-W", "localhost:8080", stdin=b"abc")).out == b"ABC"
        refused = await door.ssh("bob", task, "-W", "127.0.0.1:9", stdin=b"")
        assert refused.code == 255 and "nothing listens on port 9" in refused.err

    at_the_door(tmp_path, work)


def test_strangers_and_others_are_all_told_the_same(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob, eve = await door.house.person("bob", Role.USER), await door.house.person("eve", Role.USER)
        ann = await door.house.person("ann", Role.OPERATOR)
        looker = await door.house.person("lou", Role.VIEWER)
        for person in (bob, eve, ann, looker):
            await door.admit(person)
        his = await door.house.task(bob)
        tries = {
            "a key that nobody has": await door.ssh("mallory", his, "true"),
            "another's workload": await door.ssh("eve", his, "true"),
            "a viewer": await door.ssh("lou", his, "true"),
            "a workload that is not there": await door.ssh("eve", "123456", "true"),
            "another's name": await door.ssh("eve", "bob", "-W", f"{his}:22"),
            "no name at all": await door.ssh("eve", "+root", "true"),
        }
        told = {(done.code, done.err.partition("@")[2]) for done in tries.values()}
        assert told == {(255, "127.0.0.1: Permission denied (publickey).\r\n")}, tries
        assert (await door.ssh("ann", his, "true")).code == 0, "an operator controls all"
        assert not door.here.reached

    at_the_door(tmp_path, work)


def test_a_jump_to_what_is_anothers_is_a_jump_to_what_is_not_there(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob, eve = await door.house.person("bob", Role.USER), await door.house.person("eve", Role.USER)
        await door.admit(eve)
        his = await door.house.task(bob)
        told = [await door.ssh("eve", "eve", "-W", f"{where}:22") for where in (his, "123456", "x" * 500)]
        words = {done.err.replace(his, "N").replace("123456", "N").replace("x" * 70, "N") for done in told}
        assert len(words) == 1 and "there is no workload N" in words.pop() and {done.code for done in told} == {255}
        elsewhere = await door.ssh("eve", "eve", "-W", "127.0.0.1:80")
        assert elsewhere.code == 255 and "only SSH goes on from here" in elsewhere.err and not door.here.reached

    at_the_door(tmp_path, work)


def test_a_login_without_a_workload_tells_the_way(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        done = await door.ssh("bob", "bob")
        assert done.code == 255 and "ssh -J bob@HOST:PORT" in done.err

    at_the_door(tmp_path, work)


@pytest.mark.parametrize("how", ["key", "account"])
def test_what_is_taken_away_ends_at_once(tmp_path: Path, how: str) -> None:
    async def work(door: Door) -> None:
        bob, boss = await door.house.person("bob", Role.USER), await door.house.person("ann", Role.ADMIN)
        key = await door.admit(bob)
        task = await door.house.task(bob)
        sessions = [
            asyncio.ensure_future(door.ssh("bob", task, "echo up; sleep 60")),
            asyncio.ensure_future(door.jump("bob", f"root@{task}", "echo up; sleep 60")),
        ]
        while len(door.here.processes) < 2:
            await asyncio.sleep(0.02)
        if how == "key":
            assert (await door.house.ask("DELETE", f"/api/auth/keys/{key}", bob)).status == 200
        else:
            said = await door.house.ask("PATCH", f"/api/auth/users/{bob.user_id}", boss, {"disabled": True})
            assert said.status == 200
        async with asyncio.timeout(20):
            done = await asyncio.gather(*sessions)
        assert {ended.code for ended in done} == {255}
        async with asyncio.timeout(20):
            while not all(process.over for process in door.here.processes):
                await asyncio.sleep(0.02)
        assert (await door.ssh("bob", task, "true")).code == 255

    at_the_door(tmp_path, work)


def test_a_process_ends_with_its_session(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        process = await asyncio.create_subprocess_exec(
            "ssh", *door.options("bob"), "-p", str(door.keeper.port), f"{task}@127.0.0.1", "sleep 60"
        )
        while not door.here.processes:
            await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
        async with asyncio.timeout(20):
            while not door.here.processes[0].over:
                await asyncio.sleep(0.02)

    at_the_door(tmp_path, work)


def test_logins_and_refusals_are_in_the_trail(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        key = await door.admit(bob)
        task = await door.house.task(bob)
        await door.ssh("bob", task, "true")
        await door.ssh("mallory", task, "true")
        while len(trail := await door.house.trail(action="ssh.login")) < 2:
            await asyncio.sleep(0.02)
        assert [(entry["user"], entry["object"], entry["detail"], entry["result"]) for entry in trail] == [
            ("bob", f"task:{task}", f"key:{key}", "ok"),
            ("", "", "no key that is known here", "refused"),
        ]
        assert {entry["address"] for entry in trail} == {"127.0.0.1"}

    at_the_door(tmp_path, work)


def test_whoever_fails_too_often_waits(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        proxy = await door.keeper.ready()
        for _ in range(20):
            assert proxy.gate.failed("127.0.0.1")
        assert not proxy.gate.failed("127.0.0.1")
        assert (await door.ssh("bob", task, "true")).code == 255

    at_the_door(tmp_path, work)


def test_while_accounts_are_off_everybody_may_come_and_go(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        said = await door.house.ask("POST", "/api/tasks", None, {"command": "true"})
        task = said.body["task_ids"][0]
        assert (await door.ssh("anybody", task, "echo hi")).out == b"hi\n"
        assert (await door.jump("anybody", f"root@{task}", "echo hi")).out == b"hi\n"

    at_the_door(tmp_path, work, auth_enabled=False)
