"""Secrets as a person gives them: typed on the terminal without an echo, or on standard input; never as an argument."""

import os
import sys

from kohakuriver.client.command import Flag, Order
from kohakuriver.model.errors import BadRequest

MOST_CHARACTERS = 10_000
USUAL_KEYS = ("id_ed25519", "id_ed25519_sk", "id_ecdsa_sk", "id_rsa")
PASSWORD_STDIN = Flag(("--password-stdin",), "Read the password from standard input, one line (the old one first).")


def password(order: Order, prompt: str) -> str:
    """A password that exists already."""
    return line_of_input("a password") if order.has("password_stdin") else typed(prompt, "--password-stdin")


def new_password(order: Order, prompt: str = "New password") -> str:
    """A password that is to be; on a terminal it is typed twice. Raises BadRequest when the two differ."""
    if order.has("password_stdin"):
        return line_of_input("a password")
    first = typed(prompt, "--password-stdin")
    if typed(f"{prompt} again", "--password-stdin") != first:
        raise BadRequest("the two passwords differ")
    return first


def typed(prompt: str, instead: str) -> str:
    """What a person types on the terminal, unseen; raises BadRequest naming the option for those without one."""
    from getpass import getpass

    from kohakuriver.client.termination import unwound_when_terminated

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise BadRequest(f"there is no terminal to ask on ({prompt.lower()}): give {instead}") from None
    try:
        with unwound_when_terminated():  # else nobody would turn the echo on again
            answer = getpass(f"{prompt}: ")
    except EOFError:
        answer = ""
    return _given(answer, prompt.lower())


def line_of_input(what: str) -> str:
    """The next line of standard input; raises BadRequest when there is none."""
    return _given(sys.stdin.readline(MOST_CHARACTERS).rstrip("\r\n"), f"{what} on standard input")


def content_of(path: str) -> str:
    """The one line of a secret's file; `-` is standard input."""
    if path == "-":
        return line_of_input("a secret").strip()
    try:
        with open(path, encoding="utf-8") as file:
            return _given(file.read(MOST_CHARACTERS).strip(), f"a secret in {path}")
    except OSError as refused:
        raise BadRequest(f"{path}: {refused.strerror}") from None
    except UnicodeDecodeError:
        raise BadRequest(f"{path}: not text") from None


def public_key_in(path: str) -> str:
    """The line of a .pub file; `-` is standard input, nothing the first of those that ssh would use."""
    if not path:
        usual = [os.path.expanduser(f"~/.ssh/{name}.pub") for name in USUAL_KEYS]
        path = next((file for file in usual if os.path.exists(file)), "")
        if not path:
            raise BadRequest("FILE: you have no key yet; make one with `ssh-keygen -t ed25519`, then do this again")
    return content_of(path)


def user_name(order: Order) -> str:
    """The name that was typed, else the one of the last login, else what a person answers."""
    name: str | None = order.parsed.user
    if name:
        return name
    if not sys.stdin.isatty():
        raise BadRequest("USER: who? Give the name behind the command")
    sys.stderr.write("User name: ")
    sys.stderr.flush()
    return line_of_input("a user name").strip()


def _given(answer: str, what: str) -> str:
    if not answer:
        raise BadRequest(f"nothing was given: {what}")
    return answer
