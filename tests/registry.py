"""A private registry of images on loopback that lets in only who has the password, for the tests of pulls."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt

USER, PASSWORD = "ada", "correct-horse"
START_SECONDS = 20.0
CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}
http: {{addr: "127.0.0.1:{port}", secret: "of a test"}}
auth: {{htpasswd: {{realm: private, path: {folder}/htpasswd}}}}
"""


@contextmanager
def registry(folder: Path, port: int, namespace: Path) -> Iterator[str]:
    """Its address, for a daemon in that network namespace; it ends with the block."""
    (folder / "htpasswd").write_bytes(f"{USER}:".encode() + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n")
    (folder / "registry.yml").write_text(CONFIG.format(folder=folder, port=port))
    command = ["nsenter", f"--net={namespace}", str(shutil.which("docker-registry")), "serve", f"{folder}/registry.yml"]
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _await(process, namespace, port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _await(process: "subprocess.Popen[bytes]", namespace: Path, port: int) -> None:
    probe = ["nsenter", f"--net={namespace}", "/usr/bin/busybox", "nc", "-w", "1", "127.0.0.1", str(port)]
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(probe, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError("the registry did not come up")
        time.sleep(0.05)
