"""What a browser sends by itself, and how we keep pages of others from using it.

A browser adds its cookies to every request for our address, whoever's page made it, and a name can be made to point
at us for a moment (DNS rebinding). So whoever is known by something that a browser sends by itself must come to an
address of ours (Host), and to change something also hold what only our own page could read (X-CSRF-Token).
"""

import functools
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiohttp import web

from kohakuriver.model.access import Role
from kohakuriver.model.errors import NotAllowed
from kohakuriver.model.route import Route

R = TypeVar("R")
CSRF_HEADER = "X-CSRF-Token"
COOKIE = "kohakuriver_session"
SAFE_METHODS = ("GET", "HEAD")
KnowsName = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class WithSession(Generic[R]):
    """An answer of type R that also gives the browser a session, for so many seconds; an empty one takes it away."""

    answer: R
    session: str
    max_age_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Ambient:
    """The caller is known by what a browser sends by itself; `csrf_token` (if any) must come with what changes things."""

    csrf_token: str = ""


def cookie_name(secure: bool) -> str:
    """The session's cookie; under TLS with the prefix that keeps other hosts and plain HTTP from setting it."""
    return f"__Host-{COOKIE}" if secure else COOKIE


def session_of(request: web.Request) -> str:
    """The browser session that came with a request; empty when none did."""
    header = request.headers.get("Cookie")
    if header is None:
        return ""
    wanted = cookie_name(request.secure)  # ours needs no quotes, and the library's parser takes as long as all else
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted:
            return value
    return ""


def give_session(response: web.StreamResponse, given: WithSession[R], secure: bool) -> None:
    """Set the session's cookie, or take it away."""
    response.set_cookie(
        cookie_name(secure),
        given.session,
        max_age=given.max_age_seconds if given.session else 0,
        path="/",
        secure=secure,
        httponly=True,
        samesite="Strict",
    )


def refuse_other_sites(request: web.Request) -> None:
    """A page of another site must not act through the browser of somebody who can reach us; raises NotAllowed."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise NotAllowed("requests from pages of other sites are refused")


def refuse_strange_names(host: str, knows_name: KnowsName) -> None:
    """A name that is not ours must not pass for us in a browser; raises NotAllowed."""
    name = name_in(host)
    if not _is_address(name) and not knows_name(name):
        raise NotAllowed(
            f"this host does not know itself as {name[:100]!r}; add it to ALLOWED_HOSTS of its configuration"
        )


def refuse_forged(route: Route[object, object], headers: Mapping[str, str], ambient: Ambient) -> None:
    """What a browser session changes must have been asked for by our own page; raises NotAllowed."""
    if not ambient.csrf_token or route.method in SAFE_METHODS or route.needs is Role.ANONY:
        return
    given = headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), ambient.csrf_token.encode()):
        raise NotAllowed(f"a browser session needs the header {CSRF_HEADER}; GET /api/auth/me tells it")


def refuse_without_ticket(ambient: Ambient) -> None:
    """A browser's cookie opens no socket, for it goes along by itself; raises NotAllowed."""
    if ambient.csrf_token:
        raise NotAllowed("a browser opens a socket with a ticket: POST /api/auth/tickets, then ?ticket= in its URL")


def name_in(host: str) -> str:
    """The name or address in a Host header, in small letters, without port and brackets."""
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


@functools.lru_cache(1024)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
