"""Options are computed from the fields of requests."""

import argparse
from dataclasses import fields
from typing import Any

import pytest

from kohakuriver.client.commands import NOUNS
from kohakuriver.client.flags import count_or_indices, option_name, renamed
from kohakuriver.client.parser import build_parser
from kohakuriver.model import auth_api, files_api
from kohakuriver.model import host_api as api
from kohakuriver.model.access import Role
from kohakuriver.model.settings import ClientSettings, HostSettings, flag_name
from kohakuriver.model.task import SubmitTask

COMMANDS = {f"{noun.word} {command.verb}".strip(): command for noun in NOUNS for command in noun.commands()}
NOT_FOR_PEOPLE = {"metrics", "openapi", "tls.ca"}  # for Prometheus, for programs that read the table
# Only a browser needs a ticket; a command tells tasks one by one, and one that is refused does not stop the others.
NOT_BY_HAND = {auth_api.TICKET.name, "task.approve-many", "task.reject-many"}
TYPED_AS_WORDS = {"task submit": {"command", "arguments"}}
NEVER_TYPED = {"secret_env", "registry_login"}  # they come from files
NOT_BY_HAND |= {"overlay.ip.validate", "overlay.ip.stats"}  # `overlay status` and a submit tell as much
NOT_BY_HAND |= {files_api.READ.name, files_api.WRITE.name}  # for browsers; commands take the ways without a limit
NOT_BY_HAND |= {route.name for route in files_api.environment_routes()}  # `fs` asks these for env:NAME:PATH
WHERE = {"task_id", "path"}  # one word: ID:PATH
NOT_OFFERED = {
    "auth key add": {"public_key"},  # it comes from a file
    "fs ls": WHERE | {"after", "limit"},  # every page is printed
    "fs stat": WHERE | {"follow"},
    "fs cat": WHERE | {"offset", "version"},  # where to go on when a connection breaks
    "fs get": WHERE | {"offset", "version"},
    "fs put": WHERE | {"mode", "part", "offset"},
    "fs rm": WHERE,
    "fs mkdir": WHERE,
    "fs mv": WHERE | {"target"},
    "fs watch": WHERE | {"follow"},
    "task watch": {"before"},
    "auth login": {"username", "password", "token_name"},  # the secrets are asked for, the user is a word
    "auth register": {"username", "password", "invitation", "token_name"},
    "auth password": {"old_password", "new_password"},
    "auth user set": {"user_id", "disabled", "password"},  # the user is a word, --enable and --disable are two
    "auth user delete": {"user_id"},
    "vps extend": {"seconds"},  # a word
    "vps assign": {"user"},  # a word
    "vps unassign": {"user_id"},  # the user is a word
    "docker tarball get": {"offset"},  # it goes on by itself where it broke off
}


def below(parser: argparse.ArgumentParser, word: str) -> argparse.ArgumentParser:
    (nested,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    found: argparse.ArgumentParser = nested.choices[word]
    return found


PARSER = build_parser()


def leaf(words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = PARSER
    for word in words.split():
        parser = below(parser, word)
    return parser


def test_every_route_that_a_person_may_call_has_a_command() -> None:
    for_people = {route.name for route in api.ROUTES if route.needs is not Role.NODE} - NOT_FOR_PEOPLE - NOT_BY_HAND
    called = {route.name for command in COMMANDS.values() for route in (command.route, *command.also)}
    assert called == for_people


@pytest.mark.parametrize("words", COMMANDS)
def test_every_field_of_a_request_can_be_typed(words: str) -> None:
    command, typed = COMMANDS[words], {action.dest for action in leaf(words)._actions}
    wanted = {member.name for member in fields(command.route.takes)}
    if command.act and words == "node health":
        assert not wanted
    unasked = TYPED_AS_WORDS.get(words, set()) | NOT_OFFERED.get(words, set()) | NEVER_TYPED
    assert wanted - typed == unasked & wanted


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_of_every_command_is_explained(words: str) -> None:
    assert [action.dest for action in leaf(words)._actions if not action.help] == []
    assert f"usage: kohakuriver {words} [OPTIONS]" in leaf(words).format_help()


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_takes_the_host_and_json_after_its_words(words: str) -> None:
    options = {option for action in leaf(words)._actions for option in action.option_strings}
    assert {"--host", "--port", "--json"} <= options


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (["-t", "alpha:1::0,1", "--target", "beta"], "targets", ["alpha:1::0,1", "beta"]),
        (["-c", "4"], "required_cores", 4),
        (["--cores", "0"], "required_cores", 0),
        (["-m", "8G"], "required_memory_bytes", 8 * 10**9),
        (["--memory", "4Gi"], "required_memory_bytes", 4 * 2**30),
        (["-g", "2"], "required_gpus", 2),
        (["-g", "0,1"], "required_gpus", [0, 1]),
        (["--gpus", "@0"], "required_gpus", [0]),
        (["--container", "torch"], "container_name", "torch"),
        (["--image", "python:3.12"], "registry_image", "python:3.12"),
        (["-e", "A=1", "--env", "B=x=y", "-e", "A=2"], "env_vars", {"A": "2", "B": "x=y"}),
        (["--mount", "/a:/b:ro", "--mount", "/c:/d"], "additional_mounts", ["/a:/b:ro", "/c:/d"]),
        (["--name", "night run"], "name", "night run"),
        (["--priority", "-5"], "priority", -5),
        (["--time-limit", "1h30m"], "time_limit_seconds", 5400),
        (["--retry", "2"], "max_attempts", 3),
        (["--retry-on", "loss"], "retry_on", ["loss"]),
        (["--workdir", "/srv"], "working_dir", "/srv"),
        (["--privileged"], "privileged", True),
        (["--idempotency-key", "k1"], "idempotency_key", "k1"),
        (["--reserve-ip", "abc"], "ip_reservation_token", "abc"),
        (["--nodes", "2"], "nodes", 2),
        (["--keep-going"], "keep_going", True),
    ],
)
def test_each_option_of_submit_becomes_its_field(options: list[str], field: str, value: Any) -> None:
    parsed = leaf("task submit").parse_args([*options, "--", "true"])
    assert getattr(parsed, field) == value


def test_every_field_of_submit_is_among_those_tested_above() -> None:
    (mark,) = test_each_option_of_submit_becomes_its_field.pytestmark
    tested = {field for _, field, _ in mark.args[1]}
    assert tested == {member.name for member in fields(SubmitTask)} - TYPED_AS_WORDS["task submit"] - NEVER_TYPED


@pytest.mark.parametrize("text", ["", "x", "1,", "@", "-1x", "1;2"])
def test_gpus_that_are_neither_a_count_nor_indices_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither how many"):
        count_or_indices(text)


def test_units_and_wishes_are_not_typed() -> None:
    assert option_name("required_memory_bytes") == "memory"
    assert option_name("time_limit_seconds") == "time-limit"


def test_a_refusal_names_the_option_instead_of_the_field() -> None:
    form = COMMANDS["task submit"].form
    assert renamed(form, "required_cores: 9 is too much") == "--cores: 9 is too much"
    assert renamed(form, "targets[1]: 'a b' is not a target") == "--target: 'a b' is not a target"
    assert renamed(form, "env_vars.A: no") == "--env: no"
    assert renamed(form, "body: not JSON") == "body: not JSON"
    assert renamed(COMMANDS["task kill"].form, "task_id: no") == "TASK: no"


def test_the_options_of_client_and_programs_are_their_settings() -> None:
    listed = leaf("task list").format_help()
    for member in fields(ClientSettings):
        assert (flag_name(member.name) in listed) is not member.metadata["secret"]
    shown = leaf("host").format_help()
    assert all((flag_name(member.name) in shown) for member in fields(HostSettings) if not member.metadata["secret"])
