"""What it costs to know who asks: the same request with a login and on a host without accounts, and what signing takes."""

import json
import statistics
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kohakuriver.wire.sign import ANSWER_HEADER, REQUEST_HEADER, Request, SignAgain, Signer, Verifier, answer_mac
from tests.bench import servers
from tests.bench.figures import Bounds, Figure, at_least, at_most, interleaved
from tests.bench.load import requests_per_second

CONNECTIONS, ROUNDS, SECONDS = 16, 15, 1.0
SECRET = "the secret of the first admin"
WITH_ACCOUNTS = {"KOHAKURIVER_AUTH_ENABLED": "true", "KOHAKURIVER_ADMIN_REGISTER_SECRET": SECRET}
SIGNED_CALLS = 20_000
ORDER, ANSWER = Request("POST", "/api/execute", "", b"x" * 1000), b"x" * 200


def figures(pyz: Path, folder: Path) -> Iterator[Figure]:
    """One task, looked at by somebody with a token, by somebody with a browser session, and by anybody; and signing."""
    for name in ("closed", "open"):
        (folder / name).mkdir(parents=True)
    with (
        servers.host(pyz, folder / "closed", WITH_ACCOUNTS) as closed,
        servers.host(pyz, folder / "open") as open_to_all,
    ):
        password = "correct horse battery"
        ada = {"username": "ada", "password": password}
        told, _ = _post(closed.url, "/api/auth/register", ada | {"invitation": SECRET, "token_name": "bench"})
        token = {"Authorization": f"Bearer {told['token']}"}
        _, cookie = _post(closed.url, "/api/auth/login", ada)
        task, other = (_submit(url, headers) for url, headers in ((closed.url, token), (open_to_all.url, {})))
        for name, headers in {"a token": token, "a session": {"Cookie": cookie.partition(";")[0]}}.items():
            value, floor = interleaved(
                partial(requests_per_second, task, CONNECTIONS, SECONDS, headers=headers),
                partial(requests_per_second, other, CONNECTIONS, SECONDS),
                ROUNDS,
            )
            yield at_least(
                f"GET /api/tasks/{{id}} with {name}, against no accounts", value, "/s", Bounds(None, 0.9, floor)
            )
    yield at_most("signing a call: both sides, both ways", signing_us(), "µs", Bounds(absolute=60))


def signing_us() -> float:
    """Processor time of one signed call with an order of 1 kB: sign, verify, sign the answer, check that."""
    key = bytes(range(32))
    signer, verifier = Signer("host", key, time.time), Verifier({"host": key}.get, time.time)
    header, _ = signer.sign(ORDER)
    try:
        verifier.verify(header[REQUEST_HEADER], ORDER)
    except SignAgain as told:
        signer.learn(verifier.audience, told.details["now"])

    def call() -> None:
        header, nonce = signer.sign(ORDER)
        signed = verifier.verify(header[REQUEST_HEADER], ORDER)
        answered = {ANSWER_HEADER: answer_mac(signed.key, signed.nonce, 200, ANSWER)}
        assert signer.trusts(answered, nonce, 200, ANSWER)

    def us(calls: int) -> float:
        began = time.process_time()
        for _ in range(calls):
            call()
        return (time.process_time() - began) / calls * 1e6

    return statistics.median(us(SIGNED_CALLS // 10) for _ in range(10))


def _submit(url: str, headers: dict[str, str]) -> str:
    told, _ = _post(url, "/api/tasks", {"command": "true"}, headers)
    return f"{url}/api/tasks/{told['task_ids'][0]}"


def _post(url: str, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[Any, str]:
    """The answer, and the cookie that came with it."""
    plain = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), plain)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read()), answer.headers.get("Set-Cookie", "")
