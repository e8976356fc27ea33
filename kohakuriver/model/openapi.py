"""A route table, told as an OpenAPI 3.1 document."""

import dataclasses
import enum
import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin

from kohakuriver.model.codec import JsonObject, Snowflake, encoder, hints_of, strip_optional
from kohakuriver.model.fields import FREE, MAX_INTEGER, Bounds, bounds_of
from kohakuriver.model.route import ByteStream, PlainText, Route

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
JSON, TEXT, OCTETS = "application/json", "text/plain", "application/octet-stream"
BYTES = {"type": "string", "format": "binary"}
ID = "^([1-9][0-9]{0,17}|[1-8][0-9]{18})$"
NO_NUL = {"not": {"pattern": r"\x00"}}
REFUSAL = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "details": {"type": "object"}},
        }
    },
}
REFUSALS = ("400", "401", "403", "404", "405", "409", "413", "415", "429", "502", "503", "507")


def describe(routes: Sequence[Route[Any, Any]], title: str, version: str) -> dict[str, Any]:
    """The document (https://spec.openapis.org/oas/v3.1.0), as plain JSON values."""
    schemas: dict[str, Any] = {"Refusal": REFUSAL}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    info = {"title": title, "version": version}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _operation(route: Route[Any, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    refusal = {"description": "refused", "content": {JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}}}
    told: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.about,
        "x-role": route.needs.label,
        "x-ownership": route.owns.value,
        "parameters": [_parameter(f, route, schemas) for f in _parameter_fields(route)],
        "responses": {str(route.success): _success(route, schemas)} | dict.fromkeys(REFUSALS, refusal),
    }
    if route.ranged:
        part = _success(route, schemas) | {"description": "those bytes that a Range header asked for"}
        told["responses"] |= {"206": part, "416": refusal}
    body = [f for f in dataclasses.fields(route.takes) if f.name not in route.path_fields]
    if route.has_body and body:
        schema = _record(route.takes, schemas, leave_out=route.path_fields)
        told["requestBody"] = {"required": bool(schema["required"]), "content": {JSON: {"schema": schema}}}
    if route.raw_body:
        told["requestBody"] = {"required": True, "content": {OCTETS: {"schema": BYTES}}}
    return told


def _parameter_fields(route: Route[Any, Any]) -> list["dataclasses.Field[Any]"]:
    fields = dataclasses.fields(route.takes)
    return [f for f in fields if f.name in route.path_fields or not route.has_body]


def _parameter(f: "dataclasses.Field[Any]", route: Route[Any, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    in_path = f.name in route.path_fields
    kind, _ = strip_optional(hints_of(route.takes)[f.name])
    told = {
        "name": f.name,
        "in": "path" if in_path else "query",
        "required": in_path or _is_needed(f),
        "schema": _schema(kind, bounds_of(f), schemas),
    }
    if get_origin(kind) in (list, tuple):
        told["explode"] = False  # one text, with commas between
    return told | ({"description": f.metadata["about"]} if "about" in f.metadata else {})


def _success(route: Route[Any, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    if route.gives is ByteStream:
        return {"description": "bytes", "content": {route.media: {"schema": BYTES}}}
    if route.gives is PlainText:
        return {"description": "text", "content": {TEXT: {"schema": {"type": "string"}}}}
    return {"description": "done", "content": {JSON: {"schema": _schema(route.gives, FREE, schemas)}}}


def _schema(kind: Any, bounds: Bounds, schemas: dict[str, Any]) -> dict[str, Any]:
    inner, optional = strip_optional(kind)
    if optional:
        return {"anyOf": [_schema(inner, bounds, schemas), {"type": "null"}]}
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(a, bounds, schemas) for a in args]}
    if origin in (list, tuple):
        return _array(_schema(args[0], bounds, schemas), bounds)
    if origin is dict:
        return _mapping(_schema(args[1], bounds, schemas), bounds)
    if kind is Snowflake:
        return {"type": "string", "pattern": ID}
    if kind is JsonObject:
        return {"type": "object"}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [encoder(kind)(member) for member in kind if _passes(member, bounds)]}
    if dataclasses.is_dataclass(kind):
        return _reference(kind, schemas)
    return {"type": PLAIN[kind]} | _limits(kind, bounds)


def _array(items: dict[str, Any], bounds: Bounds) -> dict[str, Any]:
    array = {"type": "array", "items": items, "minItems": bounds.fewest, "maxItems": bounds.count}
    return array | ({"uniqueItems": True} if bounds.distinct else {})


def _mapping(values: dict[str, Any], bounds: Bounds) -> dict[str, Any]:
    names = {"minLength": 1, "maxLength": 1024} | _pattern(bounds.keys)
    return {"type": "object", "additionalProperties": values, "propertyNames": names, "maxProperties": bounds.count}


def _passes(member: enum.Enum, bounds: Bounds) -> bool:
    try:
        if bounds.check:
            bounds.check(member)
    except ValueError:
        return False
    return True


def _reference(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in schemas:
        schemas[name] = {}
        schemas[name] = _record(kind, schemas)
    return {"$ref": f"#/components/schemas/{name}"}


def _is_needed(f: "dataclasses.Field[Any]") -> bool:
    return (f.default, f.default_factory) == (dataclasses.MISSING, dataclasses.MISSING)


def _record(kind: Any, schemas: dict[str, Any], leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    hints = hints_of(kind)
    fields = [f for f in dataclasses.fields(kind) if f.name not in leave_out]
    return _exclusions(fields) | {
        "type": "object",
        "required": [f.name for f in fields if _is_needed(f)],
        "additionalProperties": False,
        "properties": {f.name: _member(f, hints[f.name], schemas) for f in fields},
    }


def _exclusions(fields: Sequence["dataclasses.Field[Any]"]) -> dict[str, Any]:
    """Of two such members at most one may be given."""
    pairs = [(f.name, bounds_of(f).not_with) for f in fields if bounds_of(f).not_with]
    given = {"not": {"type": "null"}}
    return (
        {"not": {"anyOf": [{"required": pair, "properties": dict.fromkeys(pair, given)} for pair in pairs]}}
        if pairs
        else {}
    )


def _member(f: "dataclasses.Field[Any]", kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    about = f.metadata.get("about")
    return _schema(kind, bounds_of(f), schemas) | ({"description": about} if about else {})


def _pattern(pattern: str | None) -> dict[str, Any]:
    return {"pattern": f"^(?:{pattern})$"} if pattern else NO_NUL


def _limits(kind: Any, bounds: Bounds) -> dict[str, Any]:
    if kind is str:
        told = {"maxLength": bounds.length, "minLength": bounds.shortest} | _pattern(bounds.shape or bounds.pattern)
        return told | ({"format": bounds.form} if bounds.form else {})
    if kind in (int, float):
        least = -MAX_INTEGER if bounds.least is None else bounds.least
        return {"minimum": least, "maximum": MAX_INTEGER if bounds.most is None else bounds.most}
    return {}
