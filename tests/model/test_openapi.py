"""The table told as OpenAPI 3.1 is a valid document, and says what the decoder does."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings

from kohakuriver.model import codec, host_api, runner_table
from kohakuriver.model.openapi import describe
from kohakuriver.model.route import Route
from tests.model.strategies import every_message, records

DOCUMENT = describe(host_api.ROUTES, "KohakuRiver", "1.2.3")
BOTH = {"host": DOCUMENT, "runner": describe(runner_table.ROUTES, "Runner", "1.2.3")}
SCHEMAS = {**BOTH["runner"]["components"]["schemas"], **DOCUMENT["components"]["schemas"]}
MESSAGES = [kind for kind in every_message() if kind.__name__ in SCHEMAS]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from walk(member)
    elif isinstance(value, list):
        for member in value:
            yield from walk(member)


@pytest.mark.parametrize("table", BOTH)
def test_the_document_has_the_parts_that_the_standard_asks_for(table: str) -> None:
    document = BOTH[table]
    assert document["openapi"].startswith("3.1.") and set(document["info"]) >= {"title", "version"}
    names = []
    for path, method, operation in operations(document):
        names.append(operation["operationId"])
        in_path = set(re.findall(r"{(\w+)}", path))
        assert in_path == {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")
        assert method in ("get", "put", "post", "delete", "patch")
        assert all(re.fullmatch(r"[1-5]\d\d", status) for status in operation["responses"])
        assert all("description" in response for response in operation["responses"].values())
        assert not (method in ("get", "delete") and "requestBody" in operation)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("table", BOTH)
def test_every_schema_is_json_schema_and_every_reference_leads_somewhere(table: str) -> None:
    document = BOTH[table]
    json.dumps(document)
    for part in walk(document):
        if "$ref" in part:
            name = part["$ref"].removeprefix("#/components/schemas/")
            assert name in document["components"]["schemas"]
    for schema in document["components"]["schemas"].values():
        assert jsonschema_rs.meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_every_route_is_in_it_with_its_role_and_ownership() -> None:
    told = {(path, method.upper()): operation for path, method, operation in operations(DOCUMENT)}
    assert told.keys() == {(route.path, route.method) for route in host_api.ROUTES}
    for route in host_api.ROUTES:
        operation = told[route.path, route.method]
        assert (operation["x-role"], operation["x-ownership"]) == (route.needs.label, route.owns.value)
        assert str(route.success) in operation["responses"] and operation["operationId"] == route.name


def validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "components": {"schemas": SCHEMAS}}
    )


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_is_valid_by_its_schema(kind: type) -> None:
    valid = validator({"$ref": f"#/components/schemas/{kind.__name__}"})

    @settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
    @given(records(kind))
    def check(value: Any) -> None:
        valid.validate(codec.encode(value))

    check()


@pytest.mark.parametrize("route", [r for r in host_api.ROUTES if r.has_body], ids=lambda route: route.name)
def test_every_request_body_is_valid_by_its_schema(route: Route[Any, Any]) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    if "requestBody" not in operation:
        assert route.field_names == route.path_fields
        return
    valid = validator(operation["requestBody"]["content"]["application/json"]["schema"])

    @settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
    @given(records(route.takes))
    def check(request: Any) -> None:
        _, body = route.split(codec.encoder(route.takes, compact=True)(request))
        valid.validate(body)

    check()
