"""Which host a command speaks with, and as whom: from options, else the environment, else what is remembered."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from kohakuriver.client import contexts
from kohakuriver.client.contexts import Book
from kohakuriver.client.parser import GLOBAL
from kohakuriver.model import codec
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.settings import ClientSettings, environment_name, flag_name

WHERE = ("host", "port")


def reach(typed: Mapping[str, Any], environment: Mapping[str, str], may_be_new: bool = False) -> ClientSettings:
    """The host to ask and the token for it; `cluster` is the name by which it is remembered, empty when it is not.

    The first of options and environment that names a cluster or an address decides; when neither does, the cluster
    that was logged in to last. With `may_be_new` a name that nobody knows yet is taken with the address given.
    """
    told, book = client_settings(typed, environment), contexts.read()
    name = _named(typed, environment)
    if name:
        return _by_name(told, name, book, may_be_new and (name not in book.clusters or _tells_where(typed)))
    if _tells_where(typed) or any(environment.get(environment_name(where)) for where in WHERE):
        name = book.at(told.host, told.port)
        return _as_remembered(told, name, book) if name else told
    return _as_remembered(told, book.current, book) if book.current in book.clusters else told


def _named(typed: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The cluster that is asked for by its name; raises BadRequest for a name that could not be typed."""
    name = typed.get(GLOBAL + "cluster")
    if name is None and not _tells_where(typed):
        name = environment.get(environment_name("cluster"))
    return contexts.check_name(name) if name else ""


def _tells_where(typed: Mapping[str, Any]) -> bool:
    return any(typed.get(GLOBAL + where) is not None for where in WHERE)


def _by_name(told: ClientSettings, name: str, book: Book, is_new: bool) -> ClientSettings:
    if is_new:
        return replace(told, cluster=name)
    return _as_remembered(told, name, book)


def _as_remembered(told: ClientSettings, name: str, book: Book) -> ClientSettings:
    known = book.get(name)
    return replace(
        told,
        cluster=name,
        host=known.host,
        port=known.port,
        token=told.token or known.token,
        tls=told.tls or known.tls,
        ca_file=told.ca_file or known.ca_file,
    )


def _value(kind: type, text: str) -> Any:
    """The value that a text means for a setting of that kind; what does not parse stays text."""
    if kind is bool:
        return {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }.get(text.lower(), text)
    return int(text) if kind is int and text.isdecimal() else text


def client_settings(typed: Mapping[str, Any], environment: Mapping[str, str]) -> ClientSettings:
    """The settings from options, else from the environment; raises BadRequest naming the source."""
    values: dict[str, Any] = {}
    for member in fields(ClientSettings):
        source, text = flag_name(member.name), typed.get(GLOBAL + member.name)
        if text is None:
            source, text = environment_name(member.name), environment.get(environment_name(member.name)) or None
        if text is None:
            continue
        values[member.name] = _value(type(member.default), text)
        try:
            codec.decode(ClientSettings, {member.name: values[member.name]})
        except BadRequest as bad:
            raise BadRequest(f"{source}: {str(bad).partition(': ')[2]}") from None
        if member.name == "host" and ("/" in text or text.count(":") == 1):
            raise BadRequest(f"{source}: {text[:60]!r} is not just a name or an address; the port is KOHAKURIVER_PORT")
    return ClientSettings(**values)
