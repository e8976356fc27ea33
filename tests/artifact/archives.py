"""The built file and small ones like it: what they are made of, and how a test starts them."""

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

NOBODY = 65534
SERVED = ("3.11", "3.12", "3.13", "3.14")
# A program that says where it runs from, and then runs until its standard input ends. It can leave a child behind.
PROBE = """
import sys
modules = sorted(sys.modules)
import json, os, subprocess

def main() -> int:
    folder = os.path.dirname(os.path.dirname(__file__))
    child = "child" in sys.argv and subprocess.Popen(["sleep", "60"], close_fds=False, stdout=-3, stderr=-3).pid
    print(json.dumps({"folder": folder, "modules": modules, "path": sys.path, "child": child}), flush=True)
    sys.stdin.read()
    import kohakuriver.late
    return kohakuriver.late.CODE
"""


def system_pythons() -> dict[str, Path]:
    """The Pythons on this machine that every user can run: version to executable."""
    found = [path for folder in ("/usr/bin", "/usr/local/bin") for path in Path(folder).glob("python3.*")]
    return {path.name.removeprefix("python"): path for path in found if re.fullmatch(r"python3\.\d+", path.name)}


def installed_pythons() -> dict[str, Path]:
    """All the Pythons on this machine: version to executable."""
    pythons = system_pythons()
    for path in sorted(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/3.*/bin/python3")):
        pythons[".".join(path.parts[-3].split(".")[:2])] = path
    return {**pythons, "{}.{}".format(*sys.version_info): Path(sys.executable)}


def small_archive(
    pyz: Path, target: Path, constants: dict[str, str] | None = None, more: dict[str, str] | None = None
) -> Path:
    """Write an archive that starts as the built one does, with other constants, and runs PROBE; more files can be added."""
    with zipfile.ZipFile(pyz) as built:
        start, launcher = built.read("__main__.py").decode(), built.read("_launcher.py")
    for name, text in (constants or {}).items():
        start, count = re.subn(rf'^{name} = ".*"$', f'{name} = "{text}"', start, flags=re.MULTILINE)
        assert count == 1, f"{name} is not one of the constants"
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("__main__.py", start)
        archive.writestr("_launcher.py", launcher)
        archive.writestr("site-packages/kohakuriver/__init__.py", "")
        archive.writestr("site-packages/kohakuriver/__main__.py", PROBE)
        for name, text in {"kohakuriver/late.py": "CODE = 0\n", **(more or {})}.items():
            archive.writestr(f"site-packages/{name}", text)
    return target


@dataclass(frozen=True)
class Starter:
    """Starts archives with one place to unpack into, one Python, and as one user."""

    root: Path
    python: Path = Path(sys.executable)
    user: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022

    def popen(self, archive: Path, *arguments: str, stdin: int | IO[str] = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start the archive and leave it running."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root.parent), "SHIV_ROOT": str(self.root), **self.env}
        return subprocess.Popen(
            [self.python, archive, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            umask=self.umask,
            cwd="/",
        )

    def run(self, archive: Path, *arguments: str) -> tuple[int, str, str]:
        """Start the archive and return its exit code, output and error output."""
        with self.popen(archive, *arguments) as process:
            out, err = process.communicate(timeout=100)
            return process.returncode, out, err

    def probe(self, archive: Path, *arguments: str) -> dict[str, Any]:
        """Run an archive that holds PROBE and return what it says."""
        code, out, err = self.run(archive, *arguments)
        assert (code, err) == (0, "")
        said: dict[str, Any] = json.loads(out)
        return said

    def unpacked(self) -> list[str]:
        """The names of everything in the place to unpack into, but the lock."""
        return sorted(path.name for path in self.root.iterdir() if path.name != ".kohakuriver.lock")
