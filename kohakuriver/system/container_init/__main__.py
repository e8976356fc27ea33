"""Compile the first process of containers for every machine, after its source was changed; the same bytes each time.

    python3 -m kohakuriver.system.container_init

The compiler is fetched for that (80 MB) because one that makes programs for other machines is seldom at hand.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kohakuriver.system.container_init import SOURCE, program_for, source_digest

MACHINES = ("x86_64", "aarch64")
COMPILERS = (
    "ziglang==0.13.0"
    " --hash=sha256:3ce0c9f16547e5d61b32e0d226926e9a2552ef4b91fccf7ab5ea1a623a77824b"
    " --hash=sha256:5714a4d46f9246ba6180a0930e23df2bc8bc26e62b5fe0dc798b4afca1903308\n"
)
OPTIONS = ("-static", "-Os", "-s", "-Wall", "-Wextra")


def main() -> None:
    """Fetch the compiler and write both programs beside their source."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(COMPILERS)
        pip = ["pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--require-hashes"]
        _run([*pip, "--only-binary=:all:", f"--target={folder}", f"--requirement={wanted}"], folder)
        for machine in MACHINES:
            compiler = ["ziglang", "cc", f"--target={machine}-linux-musl", *OPTIONS]
            made = [f'-DMADE_FROM="{source_digest()}"', f"-o{program_for(machine)}", SOURCE.name]
            _run([*compiler, *made], folder)
            print(f"made {program_for(machine)}")


def _run(module: list[str], folder: str) -> None:
    env = {**os.environ, "PYTHONPATH": folder, "ZIG_GLOBAL_CACHE_DIR": f"{folder}/cache"}
    subprocess.run([sys.executable, "-m", *module], check=True, cwd=SOURCE.parent, env=env)


if __name__ == "__main__":
    main()
