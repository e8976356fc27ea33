"""What the OpenAPI document promises, a live host keeps: requests made up from it find nothing, right or wrong ones."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from kohakuriver.model import host_api
from kohakuriver.system.clock import SystemClock
from tests.host.rig import running

pytestmark = pytest.mark.filterwarnings("ignore")  # of the tool about itself

EXAMPLES = {GenerationMode.POSITIVE: 3, GenerationMode.NEGATIVE: 2}
NODE = "n1"
MOST_URL_CHARACTERS = 8000  # a longer line is refused before anybody knows what it asks for
UNGUESSABLE = {"public_key", "ssh_public_key", "ip_reservation_token", "token"}  # no schema can say which ones are good
# What a check takes for granted and we do not: a body may be refused for its size, whatever is wrong inside.
CONFIG = {
    "checks": {
        "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 409, 413, 415, 429]},
        "positive_data_acceptance": {"expected-statuses": ["2xx", 401, 403, 404, 409, 429, 502, 503]},
    }
}
# The document itself is not among the operations that the tool reads from it.
ROUTES = {f"{route.method} {route.path}": route for route in host_api.ROUTES if route is not host_api.OPENAPI}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A host with accounts off and one node, in a thread of its own."""
    folder, told, over = tmp_path_factory.mktemp("host"), list[str](), threading.Event()
    up = threading.Event()

    async def live() -> None:
        async with running(folder, SystemClock()) as house:
            await house.runner(NODE)
            told.append(house.host.url)
            up.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        assert up.wait(20)
        yield told[0]
    finally:
        over.set()
        thread.join(20)


@pytest.fixture(scope="module")
def operations(url: str) -> dict[str, Any]:
    config = schemathesis.Config.from_dict(CONFIG)
    schema: Any = schemathesis.openapi.from_url(f"{url}/api/openapi.json", config=config)
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def test_the_document_is_read_whole(operations: dict[str, Any]) -> None:
    assert operations.keys() == ROUTES.keys()


@pytest.mark.parametrize("name", ROUTES)
def test_nothing_is_found(name: str, operations: dict[str, Any]) -> None:
    session = requests.Session()
    checks: Any = [check for check in CHECKS.get_all() if check is not not_a_server_error]

    for mode, examples in EXAMPLES.items():
        if mode is GenerationMode.NEGATIVE and not ROUTES[name].field_names:
            continue  # what takes nothing cannot be asked wrongly

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operations[name].as_strategy(generation_mode=mode))
        def ask(case: Case[Any]) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("targets"), list) and case.body["targets"]:
                case.body["targets"] = [NODE]  # no schema can say which nodes there are
            answer = case.call(session=session)
            assert answer.status_code not in (500, 501, 504), answer.text
            if len(str(answer.request.url)) > MOST_URL_CHARACTERS:
                return
            guessed = isinstance(case.body, dict) and bool(UNGUESSABLE & case.body.keys())
            case.validate_response(
                answer, checks=[c for c in checks if not (guessed and c is positive_data_acceptance)]
            )

        ask()
    session.close()
