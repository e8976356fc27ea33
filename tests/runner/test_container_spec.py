"""What the engine is told, from what was asked and what the node allows."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.model.errors import NotAllowed
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.attempt import Accepted
from kohakuriver.runner.container_spec import MountRules, Site, build, check_policy, check_source, inside
from kohakuriver.system.engine import ContainerSpec, Mount
from tests.runner.stage import request

LOGS = Path("/state/logs/1/1")


def site(shared_data: str = "", **settings: Any) -> Site:
    return Site(RunnerSettings(**settings), "alpha", "riverbed", shared_data, "/scratch")


def spec_of(*command: str, on: Site | None = None, mounts: tuple[Mount, ...] = (), **asked: Any) -> ContainerSpec:
    return build(Accepted(request(*command, **asked), LOGS, 1000), on or site(), mounts)


def test_everything_that_was_asked_for_arrives() -> None:
    spec = spec_of(
        "python",
        "-c",
        "print('$HOME')",
        env_vars={"A": "b c"},
        working_dir="/work",
        required_cores=4,
        required_memory_bytes=8_000_000_000,
        gpus=[3, 5],
        numa_node=1,
        registry_image="debian:12",
    )
    assert spec.command == ("python", "-c", "print('$HOME')")
    assert (spec.key, spec.name, spec.image) == ((1, 1), "kohakuriver-task-1", "debian:12")
    assert (spec.cpu_count, spec.cpu_ids, spec.numa_node, spec.memory_bytes) == (4, (), 1, 8_000_000_000)
    assert (spec.gpu_ids, spec.working_dir) == (("3", "5"), "/work")
    assert (spec.log_directory, spec.log_limit_bytes) == (LOGS, 1000)
    assert spec.labels == {
        "kohakuriver.cluster": "riverbed",
        "kohakuriver.node": "alpha",
        "kohakuriver.task": "1",
        "kohakuriver.attempt": "1",
        "kohakuriver.owner_tag": "0",
        "kohakuriver.type": "command",
    }


def test_what_was_not_asked_for_comes_from_the_settings() -> None:
    on = site(
        default_working_dir="/home",
        task_pids_limit=9,
        task_shm_bytes=7,
        docker_network_name="net",
        initial_base_image="x",
    )
    spec = spec_of("true", on=on)
    assert (spec.working_dir, spec.pids_limit, spec.shm_bytes, spec.network) == ("/home", 9, 7, "net")
    assert (spec.image, spec.memory_bytes, spec.gpu_ids, spec.privileged) == ("x", None, (), False)


@pytest.mark.parametrize(
    ("asked", "image"),
    [
        ({}, "debian:12-slim"),
        ({"container_name": "tools"}, "kohakuriver/tools:base"),
        ({"registry_image": "registry.local:5000/a/b:1"}, "registry.local:5000/a/b:1"),
    ],
)
def test_the_image(asked: dict[str, Any], image: str) -> None:
    assert spec_of("true", **asked).image == image


def test_a_task_finds_itself_in_its_environment_and_cannot_pretend_to_be_another() -> None:
    env = spec_of("true", on=site("/nfs/shared_data"), env_vars={"KOHAKURIVER_TASK_ID": "2", "A": "b"}, numa_node=0).env
    assert env == {
        "A": "b",
        "KOHAKURIVER_TASK_ID": "1",
        "KOHAKURIVER_ATTEMPT": "1",
        "KOHAKURIVER_NODE": "alpha",
        "KOHAKURIVER_SHARED_DIR": "/shared",
        "KOHAKURIVER_LOCAL_TEMP_DIR": "/local_temp",
        "KOHAKURIVER_TARGET_NUMA_NODE": "0",
    }


def test_secret_variables_reach_the_task_and_nothing_else() -> None:
    spec = spec_of("true", env_vars={"A": "b"}, secret_env={"TOKEN": "hush", "KOHAKURIVER_NODE": "beta"})
    assert (spec.env["A"], spec.env["TOKEN"], spec.env["KOHAKURIVER_NODE"]) == ("b", "hush", "alpha")
    assert "hush" not in str(spec.labels)


def test_without_shared_storage_and_numa_nothing_is_said_about_them() -> None:
    assert spec_of("true").env.keys() == {
        "KOHAKURIVER_TASK_ID",
        "KOHAKURIVER_ATTEMPT",
        "KOHAKURIVER_NODE",
        "KOHAKURIVER_LOCAL_TEMP_DIR",
    }


def test_mounts_are_those_of_the_node_and_then_the_tasks_own() -> None:
    on = site("/nfs/shared_data", additional_mounts=["/opt/data:/data:ro"])
    spec = spec_of("true", on=on, mounts=(Mount("/real/home", "/home/ada", True),))
    assert spec.mounts == (
        Mount("/nfs/shared_data", "/shared"),
        Mount("/scratch", "/local_temp"),
        Mount("/opt/data", "/data", True),
        Mount("/real/home", "/home/ada", True),
    )


def test_a_plain_process_sees_the_real_directories_and_no_mounts() -> None:
    spec = spec_of("true", on=site("/nfs/shared_data", engine="process", additional_mounts=["/opt/data:/data"]))
    assert spec.mounts == ()
    assert spec.env["KOHAKURIVER_SHARED_DIR"] == "/nfs/shared_data"
    assert spec.env["KOHAKURIVER_LOCAL_TEMP_DIR"] == "/scratch"


def test_privileged_only_where_the_node_allows_it() -> None:
    with pytest.raises(NotAllowed, match="privileged"):
        check_policy(request("true", privileged=True), site())
    check_policy(request("true", privileged=True), site(tasks_privileged=True))
    assert spec_of("true", privileged=True, on=site(tasks_privileged=True)).privileged
    assert not spec_of("true", on=site(tasks_privileged=True)).privileged


@pytest.mark.parametrize(
    "target", ["/", "/proc", "/proc/1", "/sys/fs", "/dev", "/dev/shm", "//dev", "/./sys", "/proc/"]
)
def test_nothing_is_mounted_over_the_kernels_trees(target: str) -> None:
    with pytest.raises(NotAllowed, match="nothing may be mounted"):
        check_policy(request("true", additional_mounts=[f"/data:{target}"]), site())


@pytest.mark.parametrize("mounts", [["/a:/shared"], ["/a:/local_temp"], ["/a:/x", "/b:/x/"], ["/a:/data"]])
def test_one_place_takes_one_mount(mounts: list[str]) -> None:
    on = site("/nfs/shared_data", additional_mounts=["/opt/data:/data"])
    with pytest.raises(NotAllowed, match="taken already"):
        check_policy(request("true", additional_mounts=mounts), on)


RULES = MountRules(("/srv/data", "/home"), ("/proc", "/sys", "/dev", "/run/docker.sock", "/home/river/.kohakuriver"))


@pytest.mark.parametrize("source", ["/srv/data", "/srv/data/a/b", "/home/ada"])
def test_sources_below_a_root_are_allowed(source: str) -> None:
    check_source(source, source, RULES)


@pytest.mark.parametrize(
    "source", ["/", "/srv", "/srv/database", "/etc", "/proc", "/run/docker.sock", "/run", "/var/run"]
)
def test_sources_elsewhere_are_not(source: str) -> None:
    with pytest.raises(NotAllowed, match="not below a directory allowed for mounts"):
        check_source(source, source, RULES)


@pytest.mark.parametrize("source", ["/home/river/.kohakuriver/secret", "/home/river", "/home"])
def test_neither_the_runners_own_files_nor_what_holds_them(source: str) -> None:
    with pytest.raises(NotAllowed, match="may not be shown"):
        check_source(source, source, RULES)


def test_a_root_of_everything_still_protects_the_forbidden() -> None:
    everything = MountRules(("/",), RULES.forbidden)
    check_source("/etc", "/etc", everything)
    for source in ("/", "/run", "/dev/sda", "/sys", "/run/docker.sock"):
        with pytest.raises(NotAllowed):
            check_source(source, source, everything)


def test_without_roots_nothing_is_allowed() -> None:
    with pytest.raises(NotAllowed, match="none"):
        check_source("/tmp/x", "/tmp/x", MountRules((), ()))


PARTS = st.lists(st.sampled_from(["a", "ab", "b", "a b"]), max_size=4)


@given(PARTS, PARTS)
def test_inside_is_about_whole_names(root: list[str], rest: list[str]) -> None:
    top = "/" + "/".join(root)
    assert inside(top.rstrip("/") + "/" + "/".join(rest) if rest else top, top)
    assert not inside(top.rstrip("/") + "x", top) or top == "/"
