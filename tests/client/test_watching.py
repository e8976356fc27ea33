"""Watching where no terminal is: one picture, or one document, after the other."""

import json

import pytest

from kohakuriver.model import errors
from kohakuriver.model import host_api as api
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.listing import ListAll
from tests.client.conftest import River
from tests.client.made_up_host import FIRST, RUNNING, MadeUpHost, task

ENDING = [task(**RUNNING), errors.HostUnreachable("away"), task(status=Status.FAILED, exit_code=3)]


def test_json_is_a_document_a_look_until_the_tasks_have_ended(host: MadeUpHost, river: River) -> None:
    host.in_turn(api.TASK_SHOW, *ENDING)
    told = river("task", "watch", "--json", "--interval", "0.1", str(FIRST))
    assert told.code == 3 and told.err == ""
    assert [json.loads(line)[0]["status"] for line in told.out.splitlines()] == ["running", "failed"]


def test_pictures_follow_each_other_without_commands_to_a_terminal(host: MadeUpHost, river: River) -> None:
    host.in_turn(api.TASK_SHOW, *ENDING)
    told = river("task", "watch", "--interval", "0.1", str(FIRST))
    assert told.code == 3
    assert told.out.count("TASK") == 2 and told.out.replace("\n", "").isprintable()


@pytest.mark.parametrize("word", ["abc", "-1"])
def test_what_is_no_id_is_refused(river: River, word: str) -> None:
    assert river("task", "watch", word).code == 2


def test_filters_reach_the_host(host: MadeUpHost, river: River) -> None:
    host.in_turn(api.TASK_LIST, errors.NotAllowed("no"))
    assert river("task", "watch", "-s", "running", "-n", "alpha", "-l", "7").code == 4
    assert host.requests(api.TASK_LIST) == [ListAll(status=Status.RUNNING, node="alpha", limit=7)]
