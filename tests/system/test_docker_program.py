"""A program is looked for where the kernel will look for it."""

import base64
import json
from typing import Any

import pytest

from kohakuriver.system.docker_program import DEFAULT_PATH, ImageFacts, can_run, image_facts, places
from kohakuriver.system.engine import Mount
from tests.system.test_docker_spec import spec

IMAGE = ImageFacts("sha256:1", {"PATH": "/opt/bin:/bin"}, "/home")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"command": ("/bin/sh", "-c")}, ["/bin/sh"]),
        ({"command": ("sh",)}, ["/opt/bin/sh", "/bin/sh"]),
        ({"command": ("sh",), "env": {"PATH": "/usr/bin"}}, ["/usr/bin/sh"]),
        ({"command": ("./run",)}, ["/home/run"]),
        ({"command": ("../run",), "working_dir": "/a/b"}, ["/a/run"]),
        ({"command": ("/shared/run",), "mounts": (Mount("/x", "/shared"),)}, []),
        ({"command": ("run",), "mounts": (Mount("/x", "/opt"),)}, []),
        ({"command": ("/sharedrun",), "mounts": (Mount("/x", "/shared"),)}, ["/sharedrun"]),
    ],
)
def test_places_are_those_of_the_image(changes: dict[str, Any], wanted: list[str]) -> None:
    assert list(places(spec(**changes), IMAGE)) == wanted


def test_an_image_that_says_nothing_has_dockers_defaults() -> None:
    facts = image_facts({"Id": "sha256:2", "Config": {"Env": None}})
    assert facts == ImageFacts("sha256:2", {}, "/")
    assert len(places(spec(command=("x",)), facts)) == len(DEFAULT_PATH.split(":"))


def path_stat(mode: int) -> str:
    return base64.b64encode(json.dumps({"name": "x", "mode": mode}).encode()).decode()


def test_only_what_can_be_executed_is_a_program() -> None:
    assert can_run(path_stat(0o755))
    assert can_run(path_stat(0o100))
    assert can_run(path_stat(1 << 27 | 0o777)), "where a link leads is the kernel's to say"
    assert not can_run(path_stat(0o644))
    assert not can_run(path_stat(1 << 31 | 0o755))
