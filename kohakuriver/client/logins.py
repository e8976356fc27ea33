"""Logging in and out: gets a token from the host, and keeps it where the next command finds it."""

import ipaddress
import os
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace

from kohakuriver.client import asking, contexts
from kohakuriver.client.command import Order
from kohakuriver.client.contexts import Book, Cluster
from kohakuriver.client.session import Broken, Session
from kohakuriver.model import auth_api as api
from kohakuriver.model.errors import BadRequest, Conflict, NotLoggedIn, RiverError, Unavailable
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.settings import ClientSettings, environment_name

TOKEN = environment_name("token")
NO_ACCOUNTS = "accounts are off at {address}: nobody needs to log in there"
FIRST = (
    "nobody has an account there yet; the host has written a secret for the first admin into the file that its log "
    "names: kohakuriver auth register NAME --bootstrap-file FILE"
)
IN_THE_CLEAR = (
    "the connection to {address} is not encrypted: whoever can listen on the way can read this login and everything "
    "else (for TLS: kohakuriver host tls init)"
)


def log_in(order: Order) -> int:
    """Give a name and a password, or a token; returns 0."""
    where = _place(order)
    with closing(Session(where)) as session:
        status = _status(order, session)
        if not status.auth_enabled:
            return _without_accounts(order, session)
        if status.needs_first_admin:
            raise Conflict(FIRST)
        if order.has("token_stdin"):
            return _with_token(order, replace(where, token=asking.line_of_input("a token").strip()))
        asked = api.LogIn(
            username=_user(order),
            password=asking.password(order, "Password"),
            token_name=_token_name(),
        )
        return _enter(order, where, session.call(api.LOGIN, asked))


def register(order: Order) -> int:
    """Make an account with an invitation, or the first one with the host's secret, and be logged in; returns 0."""
    where = _place(order)
    with closing(Session(where)) as session:
        status = _status(order, session)
        if not status.auth_enabled:
            return _without_accounts(order, session)
        file: str | None = order.parsed.invitation_file
        what = "Secret for the first admin" if status.needs_first_admin else "Invitation"
        values = {
            "username": asking.user_name(order),
            "invitation": asking.content_of(file) if file else asking.typed(what, "--invitation-file FILE"),
            "password": asking.new_password(order),
            "token_name": _token_name(),
        }
        return _enter(order, where, session.call(api.REGISTER, order.request(values)))


def log_out(order: Order) -> int:
    """End the token at the host, and forget it; returns 0."""
    where = order.session.settings
    if not where.token:
        raise NotLoggedIn("you are not logged in here")
    try:
        order.session.call(api.LOGOUT, Nothing())
    except NotLoggedIn:
        order.notes.hint("the host did not know this login any more")
    except Unavailable as away:
        order.notes.warn(f"the host was not told, so the token stays good there until it expires: {away}")
    _forget_token(where)
    order.answer({}, lambda: order.screen.line(f"logged out of {where.cluster or order.session.address}"))
    return 0


def status(order: Order) -> int:
    """Say who we are, where; returns 0 when that is enough to work, else what NotLoggedIn means."""
    where = order.session.settings
    told = order.session.call(api.STATUS, Nothing())
    me = order.session.call(api.ME, Nothing()) if told.name else None
    plain = {
        "cluster": where.cluster,
        "address": order.session.address,
        "encrypted": order.session.encrypted,
        "auth_enabled": told.auth_enabled,
        "name": told.name,
        "role": told.role.label,
        "by": me.by if me else "none",
        "groups": me.groups if me else [],
        "expires_at": me.expires_at if me else None,
    }
    order.answer(plain, lambda: order.screen.lines(_told(order, told, me)))
    return 0 if told.name else NotLoggedIn.exit_code


def _place(order: Order) -> ClientSettings:
    """Where the host is, without a token, and with the CA whose fingerprint was given."""
    where = replace(order.session.settings, token="")
    wanted: str | None = order.parsed.ca_fingerprint
    if not wanted:
        return where
    from kohakuriver.wire.pinning import fetch_ca, parse_fingerprint

    ca_pem = fetch_ca(where.host, where.port, parse_fingerprint(wanted))
    return replace(where, tls=True, ca_file=contexts.keep_ca(where.cluster or _name_of(where), ca_pem))


def _status(order: Order, session: Session) -> api.AuthStatus:
    """What the host says to somebody whom it does not know yet."""
    try:
        told = session.call(api.STATUS, Nothing())
    except Broken as broken:
        if session.encrypted:
            raise
        raise Broken(f"{broken} (if that host speaks TLS, give --ca-fingerprint or --tls)") from None
    _warn_in_the_clear(order, session)
    return told


def _told(order: Order, told: api.AuthStatus, me: api.Me | None) -> list[str]:
    from kohakuriver.client.auth_view import status_lines

    how = "KOHAKURIVER_TOKEN" if os.environ.get(TOKEN) else ""
    advice = FIRST if told.needs_first_admin else "log in first: kohakuriver auth login"
    return list(status_lines(order.screen, order.session, me, how if told.auth_enabled else "accounts are off", advice))


def _user(order: Order) -> str:
    known = contexts.read().clusters.get(order.session.settings.cluster)
    return known.user if known and known.user and not order.parsed.user else asking.user_name(order)


def _with_token(order: Order, where: ClientSettings) -> int:
    with closing(Session(where)) as session:
        me = session.call(api.ME, Nothing())
    if me.by != "token":
        raise BadRequest("--token-stdin: that is not an API token")
    return _keep(order, where, me.name, {"name": me.name, "role": me.role.label, "expires_at": me.expires_at})


def _enter(order: Order, where: ClientSettings, entered: api.LoggedIn) -> int:
    if entered.token is None:
        raise RiverError("the host gave no token: host and client differ in version")
    told = {"name": entered.name, "role": entered.role.label, "expires_at": entered.expires_at}
    return _keep(order, replace(where, token=entered.token), entered.name, told)


def _without_accounts(order: Order, session: Session) -> int:
    """Remember the place; there is nothing to prove."""
    order.notes.warn(NO_ACCOUNTS.format(address=session.address))
    return _keep(order, session.settings, "", {"name": "", "role": "admin", "expires_at": None})


def _keep(order: Order, where: ClientSettings, user: str, told: Mapping[str, str | None]) -> int:
    """Remember a login in the place of the one before, which ends."""
    name = where.cluster or _name_of(where)
    before: list[Cluster] = []

    def edit(book: Book) -> Book:
        before[:] = [book.clusters[name]] if name in book.clusters else []
        return book.with_cluster(
            name,
            Cluster(
                host=where.host,
                port=where.port,
                user=user,
                token=where.token,
                tls=where.tls,
                ca_file=os.path.abspath(where.ca_file) if where.ca_file else "",
            ),
        )

    contexts.change(edit)
    for old in before:
        if old.token and old.token != where.token and (old.host, old.port) == (where.host, where.port):
            with suppress(RiverError), closing(Session(replace(where, token=old.token))) as session:
                session.call(api.LOGOUT, Nothing())
    if os.environ.get(TOKEN):
        order.notes.warn(f"{TOKEN} is set, and wins over this login")
    who = f"{user} ({told['role']}), until {told['expires_at']}" if user else "nobody in particular"
    order.answer({"cluster": name, **told}, lambda: order.screen.line(f"{name}: logged in as {who}"))
    return 0


def _forget_token(where: ClientSettings) -> None:
    def edit(book: Book) -> Book:
        known = book.clusters.get(where.cluster)
        if known is None or known.token != where.token:
            return book
        return replace(book, clusters=book.clusters | {where.cluster: replace(known, token="")})

    if where.cluster:
        contexts.change(edit)


def _name_of(where: ClientSettings) -> str:
    usual: int = ClientSettings().port
    host = f"[{where.host}]" if ":" in where.host else where.host
    return host if where.port == usual else f"{host}:{where.port}"


def _token_name() -> str:
    """What the login is called in `auth token list`: the machine that it is kept on."""
    return f"login on {os.uname().nodename}"[:100]


def _warn_in_the_clear(order: Order, session: Session) -> None:
    if not session.encrypted and not _is_here(session.settings.host):
        order.notes.warn(IN_THE_CLEAR.format(address=session.address))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
