"""What people see of nodes and the cluster."""

import io
import json

import pytest

from kohakuriver.client.node_view import health_lines, node_detail, spans, spark
from kohakuriver.client.output import Screen
from kohakuriver.model import host_api as api
from kohakuriver.model.codec import encode
from kohakuriver.model.node import Metrics, NodeStatus, NumaNode
from tests.client.conftest import River
from tests.client.made_up_host import MadeUpHost, health, node


def test_the_list_has_a_line_a_node(host: MadeUpHost, river: River) -> None:
    host.answer(api.NODE_LIST, [node(), node("beta", draining=True, drain_reason="new disk", warnings=("hot",))])
    head, first, second = river("node", "list").out.splitlines()
    assert head.split() == ["NODE", "STATUS", "CORES", "GPUS", "MEMORY", "TASKS", "CPU", "SEEN", "ENGINE", "NOTE"]
    assert first.split()[:7] == ["alpha", "online", "6/8", "1/1", "30.0G/32.0G", "2", "12%"]
    assert second.split()[:2] == ["beta", "draining"] and second.endswith("docker 20.10  new disk; hot")


@pytest.mark.parametrize(("status", "names"), [("online", ["alpha"]), ("offline", ["beta"])])
def test_nodes_can_be_chosen_by_status(host: MadeUpHost, river: River, status: str, names: list[str]) -> None:
    lines = river("node", "list", "-s", status).out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == names
    assert [n["hostname"] for n in json.loads(river("node", "list", "-s", status, "--json").out)] == names


def test_status_says_everything_there_is() -> None:
    numa = (NumaNode(index=0, cpu_ids=(0, 1, 2, 3, 8), memory_bytes=16 * 10**9),)
    hot = Metrics(cpu_percent=50.0, temperature_celsius=81.4, gpus=node().gpus)
    shown = node(numa_nodes=numa, metrics=hot, clock_skew_seconds=-7200.0, draining=True, drain_reason="new disk")
    told = "\n".join(node_detail(Screen(io.StringIO()), shown, 0.0))
    for line in (
        "status       draining",
        "drained      new disk",
        "cores        6 free of 8",
        "gpus         1 free of 1",
        "             0: Accelerator, free, 0B of 80.0G",
        "numa         0: CPUs 0-3,8, 16.0G",
        "temperature  81 °C",
        "clock        -7200.0s against the host's",
    ):
        assert f"{line}\n" in told


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (["drain", "alpha", "--reason", "new disk"], api.Drain(hostname="alpha", reason="new disk")),
        (["resume", "alpha"], api.Hostname(hostname="alpha")),
        (["status", "alpha"], api.Hostname(hostname="alpha")),
        (["delete", "alpha"], api.Hostname(hostname="alpha")),
    ],
)
def test_each_command_asks_its_own_route(host: MadeUpHost, river: River, words: list[str], request_: object) -> None:
    assert river("node", *words).code == 0
    assert host.asked == [(f"node.{words[0]}", request_)]


def test_what_a_drained_node_still_does_is_told(host: MadeUpHost, river: River) -> None:
    host.answer(api.NODE_DRAIN, lambda request: node(request.hostname, draining=True))
    assert river("node", "drain", "alpha").out == "alpha  draining, 2 still run\n"


def test_a_deleted_node_needs_no_words(host: MadeUpHost, river: River) -> None:
    told = river("node", "delete", "alpha")
    assert (told.code, told.out, told.err) == (0, "", "")
    assert river("node", "delete", "alpha", "--json").out == "{}\n"


def test_a_name_that_no_node_can_have_is_refused_here(host: MadeUpHost, river: River) -> None:
    told = river("node", "status", "a/b")
    assert (told.code, host.asked) == (2, [])
    assert told.err.startswith("kohakuriver: NODE: 'a/b' is not allowed here")


def test_health_shows_the_last_minute_of_every_node(host: MadeUpHost, river: River) -> None:
    head, first, _ = river("node", "health").out.splitlines()
    assert head.split() == ["NODE", "STATUS", "CPU", "LAST", "MINUTE", "MEMORY", "CORES", "GPUS", "TASKS"]
    assert first.split() == ["alpha", "online", "98%", "▁▁▁▂▂▃▃▃▄▄▅▅▅▆▆▇▇▇██", "1.0G/32.0G", "6/8", "0/0", "2"]


def test_health_of_one_node_is_that_node(host: MadeUpHost, river: River) -> None:
    told = river("node", "health", "beta", "--json")
    assert json.loads(told.out) == encode(health("alpha", "beta").nodes[1])
    assert len(river("node", "health", "beta").out.splitlines()) == 2


def test_health_of_an_unknown_node_is_not_found(host: MadeUpHost, river: River) -> None:
    told = river("node", "health", "gamma")
    assert (told.code, told.err) == (3, "kohakuriver: there is no node gamma: `kohakuriver node list` shows them\n")


def test_a_cluster_without_nodes_has_health_too(host: MadeUpHost, river: River) -> None:
    host.answer(api.HEALTH, health())
    assert river("node", "health").code == 0


def test_the_summary_is_the_cluster_in_one_look(host: MadeUpHost, river: River) -> None:
    lines = [line.split(maxsplit=1) for line in river("node", "summary").out.splitlines()]
    assert dict(lines) == {
        "cluster": "c0ffee, host 0.1.0",
        "nodes": "2 online of 2",
        "cores": "12 free of 16",
        "memory": "30.0G free of 32.0G",
        "gpus": "none",
        "tasks": "2 running, 5 completed",
    }


@pytest.mark.parametrize("words", [["list"], ["status", "alpha"], ["health"], ["list", "--json"]])
def test_nothing_that_a_node_carries_commands_the_terminal(host: MadeUpHost, river: River, words: list[str]) -> None:
    evil = "\x1b[2J\x9b\u202eowned"
    made = node(evil, engine=evil, warnings=(evil,), draining=True, drain_reason=evil, version=evil, url=evil)
    host.answer(api.NODE_LIST, [made])
    host.answer(api.NODE_SHOW, made)
    host.answer(api.HEALTH, health(evil))
    told = river("node", *words)
    assert told.code == 0 and "owned" in told.out
    assert told.out.replace("\n", "").isprintable()


def test_runs_of_numbers_are_drawn_together() -> None:
    assert (spans([]), spans([5]), spans([0, 1, 2, 4, 6, 7])) == ("", "5", "0-2,4,6-7")


def test_bars_never_exceed_their_room_and_skip_what_was_not_measured() -> None:
    assert spark([0.0, 50.0, 100.0]) == "▁▅█"
    assert spark([None, 100.0]) == " █"
    assert len(spark([1.0] * 61)) <= 20


def test_a_terminal_that_cannot_draw_bars_gets_none() -> None:
    lines = list(health_lines(Screen(io.StringIO(), ellipsis="~"), health("alpha").nodes))
    assert lines[1].isascii()


def test_an_offline_node_without_history_is_shown(host: MadeUpHost, river: River) -> None:
    host.answer(api.NODE_LIST, [node(status=NodeStatus.OFFLINE, last_heartbeat_at="", metrics=Metrics())])
    assert river("node", "list").out.splitlines()[1].split()[:2] == ["alpha", "offline"]
