"""What a workload may ask for beyond the ordinary: nothing, unless the configuration gives it to who asks."""

from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model import codec
from kohakuriver.model.access import Role
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.policy import Asker, parse_rule, policy_of, refusal, whole_name
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.task import TaskSpec
from tests.host.auth.house import House, in_house

RULES = [
    "operator privileged",
    "group:vision mount /data/vision",
    "user mount /scratch/",
    "admin mount /",
    "user image docker.io/library/*",
    "group:vision registry ghcr.io",
    "admin image *",
]
USER, VISION = Asker(Role.USER), Asker(Role.USER, ("vision",))
OPERATOR, ADMIN = Asker(Role.OPERATOR), Asker(Role.ADMIN)


def is_allowed(asker: Asker, rules: list[str], **fields: Any) -> bool:
    return refusal(TaskSpec(command="true", **fields), asker, policy_of(rules, False)) == ""


@pytest.mark.parametrize("asker", [USER, VISION, OPERATOR, ADMIN])
def test_by_itself_nobody_may_have_anything_but_what_lies_below_shared(asker: Asker) -> None:
    assert not is_allowed(asker, [], privileged=True)
    for source in ("/", "/data", "/sharedx", "/shared2/x", "/etc"):
        assert not is_allowed(asker, [], additional_mounts=[f"{source}:/x"])
    assert is_allowed(asker, [], additional_mounts=["/shared:/x", "/shared/a/b:/y:ro", "//shared/c:/z"])
    assert is_allowed(asker, [], registry_image="anything.example/at/all:1")


@pytest.mark.parametrize(("asker", "allowed"), [(USER, False), (VISION, False), (OPERATOR, True), (ADMIN, True)])
def test_a_role_is_that_role_and_all_greater_ones(asker: Asker, allowed: bool) -> None:
    assert is_allowed(asker, RULES, privileged=True) is allowed


def test_the_old_switch_gives_privileged_to_all() -> None:
    assert refusal(TaskSpec(command="x", privileged=True), USER, policy_of([], True)) == ""


@pytest.mark.parametrize(
    ("asker", "source", "allowed"),
    [
        (VISION, "/data/vision", True),
        (VISION, "/data/vision/deep", True),
        (VISION, "/data/visions", False),
        (VISION, "/data", False),
        (USER, "/data/vision", False),
        (USER, "/scratch", True),
        (USER, "/scratch/x", True),
        (ADMIN, "/etc", True),
        (OPERATOR, "/etc", False),
    ],
)
def test_mounts_come_from_below_the_roots_of_who_asks(asker: Asker, source: str, allowed: bool) -> None:
    assert is_allowed(asker, RULES, additional_mounts=[f"{source}:/x"]) is allowed
    assert not is_allowed(USER, RULES, additional_mounts=["/scratch:/x", "/etc:/y"])  # each of them


@pytest.mark.parametrize(
    ("asker", "image", "allowed"),
    [
        (USER, "debian", True),
        (USER, "debian:12-slim", True),
        (USER, "docker.io/library/debian@sha256:" + "0" * 64, True),
        (USER, "index.docker.io/debian", True),
        (USER, "somebody/debian", False),
        (USER, "evil.example/docker.io/library/debian", False),
        (USER, "ghcr.io/lab/torch:2", False),
        (VISION, "ghcr.io/lab/torch:2", True),
        (VISION, "GHCR.io/lab/torch", True),
        (VISION, "ghcr.io.evil.example/lab/torch", False),
        (ADMIN, "localhost:5000/x", True),
    ],
)
def test_images_are_those_that_some_rule_allows_as_soon_as_there_is_one(
    asker: Asker, image: str, allowed: bool
) -> None:
    assert is_allowed(asker, RULES, registry_image=image) is allowed
    assert is_allowed(asker, RULES)  # without an image of his own: the node's


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("lab/torch", "docker.io/lab/torch:latest"),
        ("ghcr.io/torch", "ghcr.io/torch:latest"),
        ("localhost/torch", "localhost/torch:latest"),
        ("head:5000/torch:2", "head:5000/torch:2"),
        ("head:5000/torch", "head:5000/torch:latest"),
        ("debian@sha256:abc", "docker.io/library/debian@sha256:abc"),
    ],
)
def test_an_image_has_a_whole_name(image: str, name: str) -> None:
    assert whole_name(image) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "operator",
        "boss privileged",
        "node privileged",
        "operator privilege",
        "operator privileged now",
        "user mount",
        "user mount data",
        "user mount /a/../b",
        "user mount /a /b",
        "group: mount /a",
        "group:Vision mount /a",
        "user image",
    ],
)
def test_what_is_no_rule_is_refused_by_the_configuration(text: str) -> None:
    with pytest.raises(ValueError, match="WHO|not one of|takes|path"):
        parse_rule(text)
    with pytest.raises(BadRequest, match="policy"):
        codec.decode(HostSettings, {"policy": ["user mount /a", text]})


def test_the_host_refuses_at_submit_and_says_where_to_change_it(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.group("vision")
        bob, eve = await house.person("bob", Role.USER), await house.person("eve", Role.USER, "vision")
        for field, value in {
            "privileged": True,
            "additional_mounts": ["/data/vision:/x"],
            "registry_image": "ghcr.io/lab/torch",
        }.items():
            said = await house.submit(bob, **{field: value})
            assert said.status == 403 and said.message.startswith(field) and "POLICY" in said.message
            assert (await house.submit(eve, **{field: value})).status == (403 if field == "privileged" else 202)
        assert await house.get("/api/tasks", bob) == []
        boss = await house.person("ann", Role.ADMIN)
        small = await house.person("ann2", Role.ADMIN, token_role=Role.USER)
        assert (await house.submit(boss, privileged=True)).status == 202
        assert (await house.submit(small, privileged=True)).status == 403  # by what he is here

    in_house(tmp_path, work, policy=RULES)


def test_who_leaves_a_group_may_no_longer_ask_for_what_it_may(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.group("vision")
        boss, eve = await house.person("ann", Role.ADMIN), await house.person("eve", Role.USER, "vision")
        assert (await house.submit(eve, additional_mounts=["/data/vision:/x"])).status == 202
        await house.ask("PATCH", f"/api/auth/users/{eve.user_id}", boss, {"groups": []})
        assert (await house.submit(eve, additional_mounts=["/data/vision:/x"])).status == 403

    in_house(tmp_path, work, policy=RULES)


def test_without_accounts_mounts_are_left_to_the_nodes(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        body = {"command": "true", "additional_mounts": ["/data:/data"]}
        assert (await house.ask("POST", "/api/tasks", None, body)).status == 202
        assert (await house.ask("POST", "/api/tasks", None, body | {"privileged": True})).status == 403

    in_house(tmp_path, work, auth_enabled=False)
