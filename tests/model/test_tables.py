"""The two route tables: every entry says who may use it, and no two answer to the same request."""

import dataclasses
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kohakuriver.model import codec, host_api, runner_table, stream_api
from kohakuriver.model.access import NOBODY, Caller, Ownership, Role
from kohakuriver.model.codec import JsonObject, hints_of
from kohakuriver.model.route import ByteStream, Channel, PlainText, Route
from tests.model.strategies import records

TABLES = {"host": host_api.ROUTES, "runner": runner_table.ROUTES}
ROUTES = [pytest.param(route, id=f"{table}-{route.name}") for table, routes in TABLES.items() for route in routes]
CHANNEL_TABLES: list[tuple[Channel[Any], ...]] = [host_api.CHANNELS, runner_table.CHANNELS]
EACH = pytest.mark.parametrize("route", ROUTES)
OPEN = {"healthz", "openapi", "auth.status", "auth.login", "auth.register", "tls.ca"}


@EACH
def test_an_entry_is_whole(route: Route[Any, Any]) -> None:
    assert isinstance(route.needs, Role) and isinstance(route.owns, Ownership)
    assert route.about[0].isupper() and route.about.endswith(".") and "\n" not in route.about
    assert route.method in ("GET", "POST", "PUT", "PATCH", "DELETE") and route.success in (200, 202)
    assert route.path.startswith("/") and not route.path.endswith("/")
    assert dataclasses.is_dataclass(route.takes)


@EACH
def test_only_these_entries_are_open_to_anybody(route: Route[Any, Any]) -> None:
    assert (route.needs is Role.ANONY) == (route.name in OPEN and route in host_api.ROUTES)


@EACH
def test_an_entry_that_names_a_thing_says_whose_it_is(route: Route[Any, Any]) -> None:
    if route in runner_table.ROUTES:
        assert (route.needs, route.owns) == (Role.NODE, Ownership.HOST)
    elif route.owns is Ownership.JOIN:
        assert route.needs is Role.NODE and route.name == "node.join"
    elif route.needs is Role.NODE:
        assert route.owns is Ownership.NODE and "hostname" in route.field_names
    elif "task_id" in route.path_fields and route.needs < Role.OPERATOR:
        reads = route.method == "GET"
        is_inside = route.owns is Ownership.WORKLOAD_USE
        assert is_inside or route.owns is (Ownership.TASK_READ if reads else Ownership.TASK_CONTROL)


@EACH
def test_what_a_request_needs_can_be_said_in_its_path_and_query_or_body(route: Route[Any, Any]) -> None:
    for name, hint in hints_of(route.takes).items():
        in_text = name in route.path_fields or not route.has_body
        assert not in_text or not dataclasses.is_dataclass(codec.strip_optional(hint)[0]), name


@pytest.mark.parametrize("table", TABLES)
def test_no_two_routes_overlap_and_names_are_unique(table: str) -> None:
    assert len({route.name for route in TABLES[table]}) == len(TABLES[table])
    for one, other in combinations(TABLES[table], 2):
        if one.method == other.method:
            fixed_first = "{" not in one.path or "{" not in other.path  # a fixed path wins over a parameter
            assert one.path != other.path and (fixed_first or not _overlap(one.path, other.path)), (one, other)


def _overlap(one: str, other: str) -> bool:
    parts, others = one.split("/"), other.split("/")
    same = (a == b or "{" in a or "{" in b for a, b in zip(parts, others, strict=False))
    return len(parts) == len(others) and all(same)


def test_a_fixed_path_beside_a_parameter_can_be_no_valid_value_of_it() -> None:
    for one, other in combinations(host_api.ROUTES, 2):
        if one.method == other.method and _overlap(one.path, other.path):
            parameter = next(route for route in (one, other) if "{task_id}" in route.path)
            fixed = other if parameter is one else one
            assert not fixed.path.rpartition("/")[2].isdigit()


def test_a_path_that_names_an_unknown_field_is_refused_at_start() -> None:
    with pytest.raises(TypeError, match="unknown fields"):
        Route("x", "GET", "/api/{nobody}", host_api.TaskId, host_api.TaskId, Role.USER, "X.")


@EACH
def test_a_request_taken_apart_for_the_way_is_whole_again(route: Route[Any, Any]) -> None:
    @settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])
    @given(records(route.takes))
    def there(request: Any) -> None:
        members = codec.encoder(route.takes, compact=True)(request)
        path, rest = route.split(members)
        assert path.count("/") == route.path.count("/") and "?" not in path and "{" not in path
        named = {name: members[name] for name in route.path_fields}
        assert codec.decode(route.takes, named | rest) == request

    there()


@pytest.mark.parametrize("channel", [*host_api.CHANNELS, *runner_table.CHANNELS])
def test_a_socket_is_whole_and_says_who_may_open_it(channel: Channel[Any]) -> None:
    assert channel.about[0].isupper() and channel.about.endswith(".")
    assert channel.path.startswith("/ws/") and not channel.path.endswith("/")
    if channel is stream_api.TUNNEL_AT_RUNNER:
        assert (channel.needs, channel.owns) == (Role.ANONY, Ownership.CONTAINER), "it signs in a container's name"
    elif channel in runner_table.CHANNELS:
        assert (channel.needs, channel.owns) == (Role.NODE, Ownership.HOST)
    else:
        assert channel.needs in (Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN)
        assert "task_id" not in channel.path_fields or channel.owns is Ownership.WORKLOAD_USE


def test_no_two_sockets_answer_to_the_same_path() -> None:
    for table in CHANNEL_TABLES:
        assert not any(_overlap(one.path, other.path) for one, other in combinations(table, 2))


def test_answers_are_declared_messages_lists_of_them_or_raw() -> None:
    for route in (*host_api.ROUTES, *runner_table.ROUTES):
        kind = route.gives
        item = kind.__args__[0] if hasattr(kind, "__args__") else kind
        assert dataclasses.is_dataclass(item) or kind in (ByteStream, PlainText, JsonObject), route.name


@settings(deadline=None)
@given(st.sampled_from(list(Role)), st.sampled_from(list(Role)))
def test_roles_are_a_ladder_for_people_and_a_class_of_their_own_for_nodes(role: Role, needs: Role) -> None:
    may = Caller("somebody", role).may(needs)
    if needs is Role.ANONY:
        assert may
    elif Role.NODE in (role, needs):
        assert may == (role is needs)
    else:
        assert may == (role >= needs)
    assert not NOBODY.may(needs) or needs is Role.ANONY
