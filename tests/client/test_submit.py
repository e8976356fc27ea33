"""Submitting: what is typed arrives, and standard output holds the ids and nothing else."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kohakuriver.client import asking
from kohakuriver.client.cli import _parsed
from kohakuriver.client.command import Notes, Order
from kohakuriver.client.commands.task import command_line
from kohakuriver.model import host_api as api
from kohakuriver.model.task import RetryOn, SubmitTask
from tests.client.conftest import River
from tests.client.made_up_host import FIRST, MadeUpHost

AWKWARD = ["", " ", "a b", "*", "$HOME", "'", '"', "\\n", "\n", "--", "-c", "--json", "-x", "--lr=3", "é世", "-5", "@f"]


def submitted(host: MadeUpHost) -> SubmitTask:
    (request,) = host.requests(api.TASK_SUBMIT)
    assert isinstance(request, SubmitTask)
    return request


def test_standard_output_holds_the_ids_one_a_line(host: MadeUpHost, river: River) -> None:
    told = river("task", "submit", "-t", "alpha", "-t", "beta", "--", "true")
    assert (told.code, told.out, told.err) == (0, f"{FIRST}\n{FIRST + 1}\n", "")
    assert submitted(host).targets == ["alpha", "beta"]


def test_everything_that_is_typed_arrives(host: MadeUpHost, river: River) -> None:
    words = "-t alpha:1::0,1 -c 4 -m 8G -g 0,1 --image python:3.12 -e A=1 -e B=x=y --mount /a:/b --name n --priority 5"
    more = "--time-limit 2h --retry 2 --workdir /srv --privileged --idempotency-key k --retry-on loss"
    told = river("task", "submit", *words.split(), *more.split(), "--", "python", "train.py")
    assert told.code == 0
    assert submitted(host) == SubmitTask(
        command="python",
        arguments=["train.py"],
        targets=["alpha:1::0,1"],
        required_cores=4,
        required_memory_bytes=8 * 10**9,
        required_gpus=[0, 1],
        registry_image="python:3.12",
        env_vars={"A": "1", "B": "x=y"},
        additional_mounts=["/a:/b"],
        name="n",
        priority=5,
        time_limit_seconds=7200,
        max_attempts=3,
        working_dir="/srv",
        privileged=True,
        idempotency_key="k",
        retry_on=[RetryOn.LOSS],
    )


def test_a_secret_comes_from_where_no_process_list_shows_it(
    host: MadeUpHost, river: River, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OWN", "from here\n")
    (tmp_path / "key").write_bytes("two\nlines é \n".encode())
    (tmp_path / "secret").write_text("in a file named so")
    words = [
        "-e",
        "KEY=@key",
        "-e",
        "OWN=@secret",
        "-e",
        "FILE=@secret",
        "-e",
        "PLAIN=@@x",
        "-e",
        "MAIL=a@b",
        "-e",
        "NO=",
    ]
    assert river("task", "submit", *words, "--", "true").code == 0
    asked = submitted(host)
    assert asked.secret_env == {"KEY": "two\nlines é ", "OWN": "from here\n", "FILE": "in a file named so"}
    assert asked.env_vars == {"PLAIN": "@x", "MAIL": "a@b", "NO": ""}


@pytest.mark.parametrize(
    ("word", "told"),
    [("A=@nowhere", "A: no secret in 'nowhere': No such file"), ("A=@", "A: no secret in ''"),
     ("A=@/", "A: no secret in '/': Is a directory"), ("A=@bytes", "A: bytes is not text"),
     ("A=@/dev/zero", "A: /dev/zero is larger than")],
)  # fmt: skip
def test_a_secret_that_cannot_be_had_is_told_and_nothing_is_submitted(
    host: MadeUpHost, river: River, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff")
    answer = river("task", "submit", "-e", word, "--", "true")
    assert answer.code == 2 and told in answer.err and not host.requests(api.TASK_SUBMIT)


def test_a_secret_that_is_nowhere_is_asked_for(
    host: MadeUpHost, river: River, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "typed", lambda prompt, instead: f"typed for {prompt}; {instead}")
    assert river("task", "submit", "-e", "KEY=@secret", "--", "true").code == 0
    assert submitted(host).secret_env == {"KEY": "typed for KEY; -e KEY=@FILE, or set KEY here"}


@pytest.mark.parametrize("dashes", [["--"], []])
def test_arguments_reach_the_program_exactly_as_typed(host: MadeUpHost, river: River, dashes: list[str]) -> None:
    assert river("task", "submit", "-c", "2", *dashes, "program", *AWKWARD).code == 0
    request = submitted(host)
    assert (request.command, request.arguments, request.required_cores) == ("program", AWKWARD, 2)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.sampled_from(AWKWARD), min_size=1))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
def test_no_word_after_the_dashes_means_anything_to_us(words: list[str]) -> None:
    parsed = _parsed(["task", "submit", "--privileged", "--", *words])
    assert not isinstance(parsed, int)
    order = Order(parsed.command, parsed, *[None] * 2, Notes(None, False))  # type: ignore[arg-type, call-arg]
    assert command_line(order) == {"command": words[0], "arguments": words[1:]}
    assert parsed.privileged and not hasattr(parsed, "as_json")


def test_a_shell_is_there_when_it_is_asked_for(host: MadeUpHost, river: River) -> None:
    assert river("task", "submit", "--shell", 'echo "$1" | wc -c', "--", "a b").code == 0
    request = submitted(host)
    assert (request.command, request.arguments) == ("/bin/sh", ["-c", 'echo "$1" | wc -c', "sh", "a b"])


def test_a_shell_text_alone_is_enough(host: MadeUpHost, river: River) -> None:
    assert river("task", "submit", "--shell", "a; b").code == 0
    assert submitted(host).arguments == ["-c", "a; b"]


def test_a_lost_answer_can_be_asked_for_again_because_each_submit_has_a_key(host: MadeUpHost, river: River) -> None:
    assert river("task", "submit", "--", "true").code == river("task", "submit", "--", "true").code == 0
    keys = [request.idempotency_key for request in host.requests(api.TASK_SUBMIT)]
    assert all(keys) and keys[0] != keys[1]


def test_words_that_are_not_text_are_refused_before_anything_is_sent(host: MadeUpHost, river: River) -> None:
    told = river("task", "submit", "--", "true", "\udcff")
    assert (told.code, told.out, host.asked) == (2, "", [])
    assert told.err == "kohakuriver: arguments[0]: holds half of a surrogate pair\n"


def test_json_is_the_answer_of_the_host(host: MadeUpHost, river: River) -> None:
    told = river("task", "submit", "--json", "--", "true")
    assert json.loads(told.out) == {"task_ids": [str(FIRST)], "batch_id": str(FIRST)}


def test_a_refusal_of_the_host_names_the_option(host: MadeUpHost, river: River) -> None:
    def refuse(request: object) -> object:
        from kohakuriver.model.errors import BadRequest

        raise BadRequest("required_memory_bytes: more than any node has")

    host.answer(api.TASK_SUBMIT, refuse)
    told = river("task", "submit", "--", "true")
    assert (told.code, told.err) == (2, "kohakuriver: --memory: more than any node has\n")
