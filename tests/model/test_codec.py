"""Typed values to JSON and back: exact for what is valid, and a refusal that names the field for all else."""

import dataclasses
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kohakuriver.model import codec
from kohakuriver.model.codec import Snowflake, hints_of, strip_optional
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.host_api import Health, Submitted, TaskId
from kohakuriver.model.listing import ListAll
from kohakuriver.model.report import Heartbeat, Register
from kohakuriver.model.task import SubmitTask, Task
from tests.model.strategies import every_message, records

MESSAGES = every_message()
EACH = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
EXAMPLES: dict[type, Any] = {}


def example(kind: type) -> dict[str, Any]:
    """One valid message as plain JSON values, the same in every run."""
    if kind not in EXAMPLES:
        found: list[Any] = []
        draw_one(kind, found)
        EXAMPLES[kind] = codec.loads(codec.encode_text(found[-1]))
    return dict(EXAMPLES[kind])


def draw_one(kind: type, into: list[Any]) -> None:
    @settings(max_examples=1, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(records(kind))
    def keep(value: Any) -> None:
        into.append(value)

    keep()


def refusal(kind: Any, text: str | bytes) -> str:
    with pytest.raises(BadRequest) as refused:
        codec.decode(kind, codec.loads(text))
    message = str(refused.value)
    message.encode()  # it can be sent
    assert "\n" not in message and len(message) < 1000
    return message


@EACH
def test_every_message_survives_the_wire(kind: type) -> None:
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(records(kind))
    def there_and_back(value: Any) -> None:
        text = codec.encode_text(value)
        for strict in (True, False):
            assert codec.decode(kind, codec.loads(text.encode()), strict=strict) == value
        assert json.loads(text) == codec.encode(value), "what is made by hand and what is text are one"

    there_and_back()


@EACH
def test_a_member_of_the_wrong_type_is_refused_by_name(kind: type) -> None:
    for name, hint in hints_of(kind).items():
        holds_object = "dict" in str(hint) or dataclasses.is_dataclass(strip_optional(hint)[0])
        assert refusal(kind, json.dumps(example(kind) | {name: [] if holds_object else {}})).startswith(name)


@EACH
def test_an_unknown_member_is_refused_by_servers_and_left_out_by_clients(kind: type) -> None:
    whole = example(kind)
    assert refusal(kind, json.dumps(whole | {"surprise": 1})) == "surprise: unknown field"
    assert codec.decode(kind, whole | {"surprise": 1}, strict=False) == codec.decode(kind, whole)


@EACH
def test_a_member_without_default_is_required_by_name(kind: type) -> None:
    for field in dataclasses.fields(kind):
        whole = {k: v for k, v in example(kind).items() if k != field.name}
        if (field.default, field.default_factory) == (dataclasses.MISSING, dataclasses.MISSING):
            assert refusal(kind, json.dumps(whole)) == f"{field.name}: required"
        else:
            with suppress(BadRequest):  # another member may go only with this one
                codec.decode(kind, whole)
                continue
            assert f"{field.name}: required" not in refusal(kind, json.dumps(whole))


@EACH
def test_ids_travel_as_strings_and_what_is_default_may_stay_away(kind: type) -> None:
    for name, hint in hints_of(kind).items():
        if "Snowflake" in str(hint):
            made = example(kind)[name]
            assert all(isinstance(m, str) for m in (made if isinstance(made, list) else [made]) if m is not None)
    value: Any = codec.decode(kind, example(kind))
    short = codec.encoder(kind, compact=True)(value)
    assert codec.decode(kind, short) == value and short.keys() <= example(kind).keys()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"command":', "body: not JSON"),
        ("", "body: not JSON"),
        ("[]", "body: expected an object, got a list"),
        ("null", "body: expected an object, got nothing"),
        (b'{"command":"\xff"}', "body: not UTF-8"),
        ('{"command":"a"}'.encode("utf-16"), "body: not UTF-8"),
        ('{"command":"a"}'.encode("utf-32-le"), "body: not"),
        (b'\xef\xbb\xbf{"command":"a"}', "body: not JSON"),
        (b'{"command":"\xed\xa0\x80"}', "body: not UTF-8"),
        ('{"command":"a","command":"b"}', "command: given twice"),
        ('{"command":"a","env_vars":{"A":"1","A":"2"}}', "A: given twice"),
        ('{"command":"a","priority":NaN}', "priority: expected a whole number, got NaN"),
        ('{"command":"a","priority":-Infinity}', "priority: expected a whole number, got -Infinity"),
        ('{"command":"a","priority":1e999}', "priority: expected a whole number, got a number"),
        ("[" * 100_000, "body: nested too deeply"),
        ('{"a":' * 100_000, "body: nested too deeply"),
        ('{"command":"a","priority":' + "9" * 5000 + "}", "priority: expected a whole number, got 99999999999999999999…"),
        ('{"command":"a","priority":99999999999999999999}', "priority: 99999999999999999999 is not between -100 and 100"),
        ('{"command":"a","priority":true}', "priority: expected a whole number, got true or false"),
        ('{"command":"a","priority":1.5}', "priority: expected a whole number, got a number"),
        ('{"command":"a","priority":"1"}', "priority: expected a whole number, got text"),
        ('{"command":"a","privileged":1}', "privileged: expected true or false, got a whole number"),
        ('{"command":null}', "command: expected text, got nothing"),
        ('{"command":""}', "command: must not be empty"),
        ('{"command":"a\\u0000b"}', "command: must not hold a NUL character"),
        ('{"command":"\\ud800"}', "command: holds half of a surrogate pair"),
        ('{"\\ud800":1}', "'\\ud800': unknown field"),
        ('{"a\\nb":1}', "'a\\nb': unknown field"),
        ('{"\\udfff":1,"\\udfff":1}', "'\\udfff': given twice"),
        ('{"command":"a","env_vars":{"\\ud800":"x"}}', "env_vars: holds half of a surrogate pair"),
        ('{"command":"a","env_vars":{"A":"\\udc00"}}', "env_vars.A: holds half of a surrogate pair"),
        ('{"command":"a","env_vars":{"A=B":"c"}}', "env_vars: 'A=B' cannot name a variable"),
        ('{"command":"a","env_vars":{"A\\nB":1}}', "env_vars.'A\\nB': expected text, got a whole number"),
        ('{"command":"a","name":"x\\ny"}', "name: 'x\\ny' is not allowed here"),
        ('{"command":"a","name":"' + "x" * 10_000 + '"}', "name: longer than 128 characters"),
        ('{"command":"' + "x" * 1_000_000 + '"}', "command: longer than 120000 characters"),
        ('{"command":"a","arguments":' + json.dumps(["y" * 60_000] * 2) + "}", "command: with its arguments longer"),
        ('{"command":"a","arguments":' + json.dumps([""] * 5000) + "}", "arguments: more than 4096 items"),
        ('{"command":"a","arguments":["ok",5]}', "arguments[1]: expected text, got a whole number"),
        ('{"command":"a","required_cores":-1}', "required_cores: -1 is not between 0 and 4096"),
        ('{"command":"a","required_memory_bytes":"8G"}', "required_memory_bytes: expected a whole number, got text"),
        ('{"command":"a","required_memory_bytes":1}', "required_memory_bytes: 1 is not between 6291456 and"),
        ('{"command":"a","required_gpus":[1,1]}', "required_gpus: a GPU is named twice"),
        ('{"command":"a","required_gpus":[0,-1]}', "required_gpus[1]: -1 is not between 0 and 1024"),
        ('{"command":"a","required_gpus":"all"}', "required_gpus: expected a whole number or a list, got text"),
        ('{"command":"a","targets":["a::0,0"]}', "targets[0]: 'a::0,0' names a GPU twice"),
        ('{"command":"a","targets":["../etc"]}', "targets[0]: '../etc' is not a node name"),
        ('{"command":"a","additional_mounts":["/a:/b","/a/../b:/c"]}', "additional_mounts[1]: '/a/../b:/c' must hold"),
        ('{"command":"a","working_dir":"here"}', "working_dir: 'here' is not allowed here"),
        ('{"command":"a","container_name":"../x"}', "container_name: '../x' is not allowed here"),
        ('{"command":"a","container_name":"x","registry_image":"y"}', "container_name: give an environment or"),
        ('{"command":"a","retry_on":["luck"]}', "retry_on[0]: 'luck' is not one of failure, loss"),
        ('{"command":"a","idempotency_key":"a b"}', "idempotency_key: 'a b' is not allowed here"),
    ],
)  # fmt: skip
def test_a_bad_submit_is_refused_by_the_name_of_the_field(text: str | bytes, told: str) -> None:
    assert refusal(SubmitTask, text).startswith(told)


@pytest.mark.parametrize(
    "raw", ["abc", "", "-1", "0", "1.5", "1e3", "007", "٣", "9" * 20, 2**63, 0, -5, 1.0, True, None, [], {}]
)
def test_an_id_is_digits_within_63_bits(raw: Any) -> None:
    assert refusal(TaskId, json.dumps({"task_id": raw})).startswith("task_id: expected an id (digits)")


def test_an_id_may_also_come_as_a_number() -> None:
    assert codec.decode(TaskId, {"task_id": 7}) == codec.decode(TaskId, {"task_id": "7"})


def test_a_number_without_a_fraction_is_whole_however_it_is_written() -> None:
    for text in ("2", "2.0", "2e0", "20e-1"):
        made = codec.decode(SubmitTask, codec.loads(f'{{"command":"a","priority":{text}}}'))
        assert made.priority == 2 and type(made.priority) is int
    assert codec.decode(SubmitTask, {"command": "a", "required_gpus": 2.0}).required_gpus == 2
    assert refusal(SubmitTask, '{"command":"a","required_gpus":2.5}').startswith(
        "required_gpus: expected a whole number"
    )


def test_a_nested_field_is_named_with_its_way() -> None:
    whole = example(Heartbeat) | {"samples": [{"at": 1.0}, {"at": "now"}]}
    assert refusal(Heartbeat, json.dumps(whole)) == "samples[1].at: expected a number, got text"
    whole = example(Register)
    whole["machine"] = whole["machine"] | {"gpus": [{"index": 0, "name": "x", "speed": 1}]}
    assert refusal(Register, json.dumps(whole)) == "machine.gpus[0].speed: unknown field"


def test_a_time_that_no_calendar_knows_is_refused() -> None:
    whole = example(Heartbeat)
    state = {"task_id": "1", "attempt": 1, "state": "running", "started_at": 9e15}
    whole["report"] = whole["report"] | {"workloads": [state]}
    assert refusal(Heartbeat, json.dumps(whole)).startswith("report.workloads[0].started_at: ")


def test_a_long_reason_of_a_big_cluster_reaches_the_client() -> None:
    lines = "\n".join(f"node-{number}: 4 cores asked, 2 free" for number in range(2000))
    whole = example(Task) | {"reason": lines}
    assert codec.decode(Task, whole, strict=False).reason == lines


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_json_at_all_is_a_message_or_a_bad_request(raw: Any) -> None:
    for kind in (SubmitTask, ListAll, Health, Submitted):
        try:
            codec.decode(kind, codec.loads(json.dumps(raw)))
        except BadRequest as refused:
            str(refused).encode()


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_at_all_are_json_or_a_bad_request(raw: bytes) -> None:
    try:
        codec.loads(raw)
    except BadRequest as refused:
        str(refused).encode()


def test_an_encoder_is_made_once_for_a_type() -> None:
    assert codec.encoder(Task) is codec.encoder(Task)
    assert codec.encoder(Task, compact=True) is codec.encoder(Task, compact=True)
    assert codec.encoder(list[Snowflake])([Snowflake(5)]) == ["5"]
