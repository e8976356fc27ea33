"""What a command of a person is: words, a route, how to show its answer; and what it has at hand when it runs."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TextIO, TypeVar

from kohakuriver.client import flags
from kohakuriver.client.names import with_id
from kohakuriver.client.output import Screen, json_text, safe
from kohakuriver.client.pace import Clock
from kohakuriver.model import codec
from kohakuriver.model.errors import Refused, RiverError
from kohakuriver.model.route import Route

if TYPE_CHECKING:
    from kohakuriver.client.session import Session

KEY_BYTES = 16
Q = TypeVar("Q")
R = TypeVar("R")


class Flag(NamedTuple):
    """An option that is not a field of the request; `options` are those of argparse's `add_argument`."""

    words: tuple[str, ...]
    about: str
    options: Mapping[str, Any] = {"action": "store_true"}
    complete: str = ""


class Notes:
    """What is said beside the answer, on standard error."""

    def __init__(self, err: TextIO, as_json: bool) -> None:
        self.err, self.as_json = err, as_json

    @property
    def for_a_person(self) -> bool:
        return self.err.isatty() and not self.as_json

    def hint(self, text: str) -> None:
        """Something a person may like to know; programs do not get it."""
        if self.for_a_person:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Something that anybody must know."""
        self.err.write(f"kohakuriver: {safe(' '.join(text.splitlines()))}\n")
        self.err.flush()

    def error(self, error: RiverError) -> None:
        """Why a command failed: one line, or one JSON document in the shape of the wire."""
        if self.as_json:
            told = {"error": {"code": error.code, "message": str(error), "details": error.details}}
            self.err.write(json_text(told) + "\n")
        else:
            self.warn(str(error))


class Order(NamedTuple):
    """One run of a command: what was typed, and what it has at hand."""

    command: "Command[Any, Any]"
    parsed: argparse.Namespace
    session: "Session"
    screen: Screen
    notes: Notes
    clock: Clock = Clock()
    random_bytes: Callable[[int], bytes] = os.urandom

    @property
    def as_json(self) -> bool:
        return self.notes.as_json

    def new_key(self) -> str:
        """An idempotency key that nobody has."""
        return self.random_bytes(KEY_BYTES).hex()

    def has(self, name: str) -> bool:
        """Whether a switch was typed."""
        return bool(getattr(self.parsed, name, False))

    def values(self) -> dict[str, Any]:
        """The plain values of the request's fields that were typed."""
        return flags.given(self.command.form, self.parsed)

    def request(self, values: Mapping[str, Any]) -> Any:
        """The typed request, with the id of whatever was named; raises BadRequest naming the option."""
        return codec.decode(self.command.route.takes, with_id(self.session, dict(values)))

    def answer(self, plain: Any, show: Callable[[], None]) -> None:
        """Print the answer raw with --json, else as it is shown."""
        if self.as_json:
            self.screen.json(plain)
        else:
            show()


def shown(lines: Callable[[Screen, R], Iterator[str]]) -> Callable[[Order, R], Iterator[str]]:
    """Shows an answer by the lines that are made of it."""
    return lambda order, answer: lines(order.screen, answer)


def shown_now(lines: Callable[[Screen, R, float], Iterator[str]]) -> Callable[[Order, R], Iterator[str]]:
    """The same, where it matters how long ago things were."""
    return lambda order, answer: lines(order.screen, answer, order.clock.now())


def show_nothing(order: Order, answer: object) -> Iterator[str]:
    """It is done, and there is no more to say."""
    return iter(())


class Command(NamedTuple, Generic[Q, R]):
    """One command of a noun, `verb` is a word or two; `also` names routes that it calls besides its own.

    An empty verb is the noun alone. One that `enters` may name a cluster that nobody knows yet.
    `words` are fields that are typed without an option, besides those in the route's path.

    Without `act`, the request is sent (once for each word, where `many`) and `show` gives the lines of its answer.
    """

    verb: str
    route: Route[Q, R]
    show: Callable[[Order, R], Iterator[str]] | None = None
    act: Callable[[Order], int] | None = None
    about: str = ""
    many: bool = False
    hidden: frozenset[str] = frozenset()
    spelled: Mapping[str, flags.Spelling] = {}
    extra: tuple[Flag, ...] = ()
    also: tuple[Route[Any, Any], ...] = ()
    more: str = ""
    enters: bool = False
    words: frozenset[str] = frozenset()

    @property
    def form(self) -> flags.Form:
        positional = (self.route.path_fields | self.words) - self.hidden
        return flags.Form(self.route.takes, positional, self.many, self.hidden, self.spelled)

    @property
    def summary(self) -> str:
        return self.about or self.route.about

    def run(self, order: Order) -> int:
        """The exit code; raises RiverError, whose message names options as a person types them."""
        try:
            return self.act(order) if self.act else each(order)
        except Refused as refused:
            raise renamed(refused, self.form) from None


def renamed(refused: Refused, form: flags.Form) -> Refused:
    """The same refusal, with the option's name in the place of the field's."""
    return type(refused)(flags.renamed(form, str(refused)), refused.details)


def each(order: Order, then: Callable[[Any], tuple[Any, int]] = lambda plain: (plain, 0)) -> int:
    """Send the request, once for each positional word; a refusal of one does not stop the others.

    `then` makes of an answer what is shown, and an exit code.
    """
    command, values = order.command, order.values()
    requests = [order.request(one) for one in _one_by_one(values, command)]
    answers, code = [], 0
    for request in requests:
        try:
            plain, ended = then(order.session.ask(command.route, request))
        except RiverError as error:
            if len(requests) == 1:
                raise
            order.notes.error(error)
            code = code or error.exit_code
            continue
        answers.append(plain)
        code = code or ended
        if command.show and not order.as_json:
            order.screen.lines(command.show(order, order.session.understand(command.route, plain)))
    if order.as_json:
        order.screen.json(answers if len(requests) > 1 else answers[0])
    return code


def _one_by_one(values: dict[str, Any], command: Command[Any, Any]) -> Iterator[dict[str, Any]]:
    if not command.many:
        yield values
        return
    (name,) = command.form.positional
    for word in dict.fromkeys(values[name]):
        yield values | {name: word}
