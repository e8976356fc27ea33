"""SSH public keys: what ssh-keygen makes is read as ssh-keygen reads it, what is weak or broken is refused."""

import base64
import subprocess
from pathlib import Path

import pytest

from kohakuriver.model.public_key import read_public_key

GOOD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def made_by_keygen(folder: Path, *options: str) -> str:
    path = folder / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-C", "ada at home", "-f", path, *options], check=True, capture_output=True
    )
    return path.with_suffix(".pub").read_text()


def shown_by_keygen(line: str) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", "-"], input=line, text=True, check=True, capture_output=True)
    return done.stdout.split()[1]


def string(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


def line_of(algorithm: str, *parts: bytes) -> str:
    blob = b"".join(map(string, (algorithm.encode(), *parts)))
    return f"{algorithm} {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize("options", [("-t", "ed25519"), ("-t", "rsa", "-b", "3072")], ids=["ed25519", "rsa"])
def test_a_key_has_the_name_that_ssh_keygen_gives_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    line = made_by_keygen(tmp_path, *options)
    key = read_public_key(line)
    assert key.fingerprint == shown_by_keygen(line)
    assert key.comment == "ada at home" and key.text == " ".join(line.split()[:2])


def test_a_key_in_hardware_is_a_key() -> None:
    line = line_of("sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")
    assert read_public_key(line).algorithm == "sk-ssh-ed25519@openssh.com"
    assert read_public_key(line_of("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", b"\4" + bytes(64), b"ssh:"))


@pytest.mark.parametrize(
    ("options", "told"),
    [(("-t", "rsa", "-b", "2048"), "2048 bits"), (("-t", "ecdsa"), "not accepted"), (("-t", "dsa"), "not accepted")],
    ids=["short rsa", "nist curve", "dsa"],
)
def test_a_weak_key_is_refused_with_the_way_to_a_better_one(tmp_path: Path, options: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=f"{told}.*ssh-keygen -t ed25519"):
        read_public_key(made_by_keygen(tmp_path, *options))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "not one line"),
        (f"{GOOD}\n{GOOD}", "not one line"),
        (f'command="ls" {GOOD}', "not accepted"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private"),
        (GOOD[:-4], "cut off"),
        (GOOD + "!", "BASE64"),
        (GOOD.replace("ssh-ed25519", "ssh-rsa"), "not of the kind"),
        (line_of("ssh-ed25519", bytes(31)), "not whole"),
        (line_of("ssh-ed25519", bytes(32), b"more"), "not whole"),
        (line_of("ssh-rsa", b"\3", b"\xff" * 511 + b"\xfe"), "4096 bits"),
        (line_of("ssh-rsa", b"\1", b"\xff" * 512), "cannot be"),
        (line_of("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp384", bytes(65), b"ssh:"), "not whole"),
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(line: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_public_key(line)
