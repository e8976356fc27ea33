"""A join that was recorded, changed on the way or made up is worth nothing."""

import json
from pathlib import Path

import pytest

from kohakuriver.wire.joining import Token
from kohakuriver.wire.sign import ANSWER_HEADER, REQUEST_HEADER, Request, Signer, SteadyTime
from tests.host.auth.house import Said
from tests.host.joining.machines import Lab, in_lab

PATH = "/api/nodes/join"
BODY: dict[str, object] = {"hostname": "alpha", "nonce": "0" * 64}


async def send(lab: Lab, headers: dict[str, str], body: object = BODY, path: str = PATH) -> Said:
    return await lab.house.ask("POST", path, headers, body)


async def signed(lab: Lab, token: Token, body: object = BODY) -> dict[str, str]:
    """The header of a join that the host would accept."""
    signer = Signer(token.signs_as, token.secret, SteadyTime())
    request = Request("POST", PATH, "", json.dumps(body).encode())
    first = await send(lab, signer.sign(request)[0], body)
    assert (first.status, first.code) == (401, "stale_signature")
    signer.learn(first.body["error"]["details"]["audience"], first.body["error"]["details"]["now"])
    return signer.sign(request)[0]


async def uses_left(lab: Lab) -> list[int]:
    return [one["uses_left"] for one in await lab.house.get("/api/join-tokens", lab.admin)]


def test_a_recorded_join_is_answered_once(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        token = await lab.token(uses=3)
        header = await signed(lab, token)
        said = await send(lab, header)
        assert said.status == 200 and ANSWER_HEADER in said.headers
        for _ in range(3):
            again = await send(lab, header)
            assert again.status == 401 and "already answered" in again.message
        assert await uses_left(lab) == [2]

    in_lab(tmp_path, work)


@pytest.mark.parametrize("change", ["hostname", "nonce", "path", "name", "mac", "truncated"])
def test_a_join_that_was_changed_on_the_way_is_refused(tmp_path: Path, change: str) -> None:
    async def work(lab: Lab) -> None:
        token, other = await lab.token(), await lab.token()
        header, body = await signed(lab, token), dict(BODY)
        version, name, audience, at, nonce, mac = header[REQUEST_HEADER].split(";")
        if change in body:
            body[change] = {"hostname": "beta", "nonce": "1" * 64}[change]
        elif change == "name":
            name = other.signs_as
        elif change == "mac":
            mac = mac[:-1] + ("0" if mac[-1] != "0" else "1")
        elif change == "truncated":
            mac = mac[:32]
        text = f"{version};{name};{audience};{at};{nonce};{mac}"
        said = await send(lab, {REQUEST_HEADER: text}, body, PATH + ("?x=1" if change == "path" else ""))
        assert said.status == 401 and ANSWER_HEADER not in said.headers
        assert token.secret.hex() not in str(said.body)
        assert await uses_left(lab) == [1, 1] and lab.host.keys.find("alpha") == lab.host.keys.shared

    in_lab(tmp_path, work)


def test_without_a_signature_nobody_joins(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        assert (await send(lab, {})).status == 401
        assert (await send(lab, lab.admin)).status == 403  # an admin is no machine
        assert (await send(lab, {REQUEST_HEADER: "v1;join:1;;0;n;m"})).status == 401

    in_lab(tmp_path, work)
