"""New tokens and sessions: what goes into the store, and the secret that is shown once."""

import sqlite3
from dataclasses import dataclass

from kohakuriver.host.auth import credentials
from kohakuriver.host.auth.credentials import Kind
from kohakuriver.host.store import sessions, tokens
from kohakuriver.host.store.sessions import SessionRow
from kohakuriver.host.store.tokens import TokenRow
from kohakuriver.model.access import Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict

MOST_TOKENS, MOST_SESSIONS = 100, 50
DAY_SECONDS, HOUR_SECONDS = 86400.0, 3600.0


@dataclass(frozen=True, slots=True)
class NewToken:
    """An API token that is about to be stored."""

    secret: str
    row: TokenRow


@dataclass(frozen=True, slots=True)
class NewSession:
    """A browser session that is about to be stored."""

    secret: str
    row: SessionRow


@dataclass(frozen=True, slots=True)
class Span:
    """From when until when, in UTC unix seconds."""

    start: float
    end: float


def new_token(token_id: Snowflake, user_id: int, name: str, role: Role, span: Span) -> NewToken:
    """A token that may do at most what `role` may."""
    secret = credentials.make(Kind.TOKEN, token_id)
    return NewToken(
        secret, TokenRow(token_id, user_id, name, role, credentials.digest_of(secret), span.start, span.end)
    )


def new_session(session_id: Snowflake, user_id: int, address: str, span: Span) -> NewSession:
    """A session that began at an address."""
    secret = credentials.make(Kind.SESSION, session_id)
    return NewSession(
        secret, SessionRow(session_id, user_id, address, credentials.digest_of(secret), span.start, span.end)
    )


def store_token(tx: sqlite3.Connection, token: TokenRow) -> None:
    """Keep it; raises Conflict when the person has too many."""
    if len(tokens.of_user(tx, token.user_id)) >= MOST_TOKENS:
        raise Conflict(f"you have {MOST_TOKENS} API tokens; revoke one first")
    tokens.insert(tx, token)


def store_session(tx: sqlite3.Connection, session: SessionRow) -> None:
    """Keep it; the oldest ends when the person has too many."""
    sessions.insert(tx, session)
    sessions.keep_newest(tx, session.user_id, MOST_SESSIONS)
