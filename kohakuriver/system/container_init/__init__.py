"""The first process of every container: `init.c`, and what it becomes on each kind of machine."""

import hashlib
from pathlib import Path

SOURCE = Path(__file__).with_name("init.c")


def program_for(machine: str) -> Path:
    """Where the compiled program for a machine (`x86_64`, `aarch64`) is; it does not exist for others."""
    return SOURCE.with_name(f"init-{machine}")


def source_digest() -> str:
    """What a program says of the source that it was made from."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()
