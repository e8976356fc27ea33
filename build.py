#!/usr/bin/env python3
"""The one developer tool: it builds kohakuriver.pyz, and runs its demo, its tests, its checks and its benchmarks."""

from __future__ import annotations

import argparse
import configparser
import fcntl
import hashlib
import importlib.util
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent
DIST, BUILD, VENV = ROOT / "dist", ROOT / "build", ROOT / ".venv"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
GLIBC = "2.28"
SHEBANG = "/usr/bin/env python3"
PACKAGE = "kohakuriver"
CHECKED = (PACKAGE, "tests", "build.py")
RUFF_OPTIONS = ("--isolated", "--line-length=120", "--target-version=py311")
RUFF_IGNORED = "--ignore=RUF009"  # it takes our own wrapper of dataclasses.field for a mutable default
UNBUNDLED = re.compile(  # what no program needs at run time
    r"(^|/)tests?/|\.(pyi|pyx|pxd|pxi|c|h|js)$|(^|/)py\.typed$|(^|/)\.hash/|/_testcapi\."
    r"|\.dist-info/(RECORD|WHEEL|INSTALLER|REQUESTED|top_level\.txt)$"
)
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
ONLY_PINNED = ("--no-deps", "--require-hashes", "--only-binary=:all:")
SHIV = ("shiv", "click")
NOT_PINNED = ("pip", "setuptools")  # shiv asks for them, but not for the way it is used here
# What the tests need from Debian: package:command that shows it is there (no command: ask dpkg).
SYSTEM_PACKAGES = (
    "busybox-static: ca-certificates: docker.io:dockerd docker-registry:docker-registry fish:fish iperf3:iperf3 "
    "iproute2:ip iptables:iptables nftables:nft openssh-client:ssh openssh-server:sshd procps:ps rsync:rsync "
    "systemd:systemd-analyze wrk:wrk zsh:zsh"
)


class BuildError(Exception):
    """A step that failed; the text tells the developer what to do."""


@dataclass(frozen=True)
class Pin:
    """One distribution of the closure: its version, and file name to sha256 of each wheel that may be used."""

    name: str
    version: str
    wheels: dict[str, str]


@dataclass(frozen=True)
class Options:
    """What the command line says: machine to build for, folder of wheels, whether that is all, and what to pass on."""

    machine: str
    wheels: Path
    offline: bool
    provision: bool
    extras: list[str]

    @property
    def pyz(self) -> Path:
        """Return the path of the archive for the chosen machine."""
        return DIST / (f"{PACKAGE}.pyz" if self.machine == "x86_64" else f"{PACKAGE}-{self.machine}.pyz")

    @property
    def record(self) -> Path:
        """Return the path of the file that remembers what the archive was made from."""
        return BUILD / f"{self.pyz.name}.inputs"


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print what begins, and how long it took when it has ended well."""
    print(f"==> {title}")
    began = time.monotonic()
    yield
    print(f"    {title}: {time.monotonic() - began:.1f} s")


def run(command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a command from the repository's top; raise BuildError if it fails."""
    if subprocess.run(command, check=False, cwd=ROOT, env=env, stdin=subprocess.DEVNULL).returncode:
        raise BuildError(f"this failed: {' '.join(command)}")


@contextmanager
def alone() -> Iterator[Path]:
    """Let one build.py at a time change build/, dist/ and .venv/; give a scratch folder."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(BUILD / "scratch", ignore_errors=True)
        (BUILD / "scratch").mkdir()
        yield BUILD / "scratch"
        shutil.rmtree(BUILD / "scratch")


def settings() -> configparser.ConfigParser:
    """Return setup.cfg as read."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def pins(group: str, *names: str) -> list[Pin]:
    """Return the pins of a group, or only the named ones: each is a version, then lines of `sha256  file`."""
    found = []
    for name, text in settings()[f"pins:{group}"].items():
        version, *lines = text.split("\n")
        found.append(Pin(name, version, {file: digest for digest, file in map(str.split, lines)}))
    return [pin for pin in found if pin.name in names] if names else found


def fits(wheel: str, python: str, machine: str) -> bool:
    """Tell by its name (PEP 427) whether a wheel can be used by a CPython on a machine."""
    interpreters, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    tag = "cp" + python.replace(".", "")
    if platforms != "any" and not platforms.endswith(machine):
        return False
    if abi == "abi3":
        return int(interpreters.removeprefix("cp3")) <= int(python.removeprefix("3."))
    return (interpreters, abi) == (tag, tag) or (abi == "none" and "py3" in interpreters.split("."))


def choose(pin: Pin, python: str, machine: str) -> str:
    """Return the file name of the pin's wheel for a CPython on a machine, the most specific one if there are several."""
    candidates = [wheel for wheel in pin.wheels if fits(wheel, python, machine)]
    if not candidates:
        raise BuildError(f"{pin.name} {pin.version} has no pinned wheel for CPython {python} on {machine}")
    return max(candidates, key=lambda wheel: (wheel.split("-")[-2] != "none", wheel))


def sha256(path: Path) -> str:
    """Return the digest of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def requirements(chosen: list[Pin], python: str, machine: str) -> str:
    """Return lines for pip that allow one wheel of each pin and nothing else."""
    return "".join(
        f"{pin.name}=={pin.version} --hash=sha256:{pin.wheels[choose(pin, python, machine)]}\n" for pin in chosen
    )


def pip() -> list[str]:
    """Return the command that runs this Python's own pip, or the one in .venv when it has none."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, *PIP]
    if not (VENV / "bin/pip").exists():
        make_venv()
    return [str(VENV / "bin/python"), *PIP]


def fetch(chosen: list[Pin], python: str, machine: str, folder: Path) -> None:
    """Download the wheels of the pins for a CPython on a machine that the folder lacks."""
    wanted = {pin.name: choose(pin, python, machine) for pin in chosen}
    platforms = {tag for wheel in wanted.values() for tag in wheel.removesuffix(".whl").split("-")[-1].split(".")}
    missing = [pin for pin in chosen if not (folder / wanted[pin.name]).exists()]
    if missing:
        print(f"    downloading {len(missing)} wheels for CPython {python} on {machine}")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(requirements(missing, python, machine))
            file.flush()
            command = [
                *pip(),
                "download",
                "-q",
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
                f"--dest={folder}",
            ]
            command += [f"--python-version={python}", "--implementation=cp", f"--requirement={file.name}"]
            command += [f"--platform={tag}" for tag in sorted(platforms - {"any"})]
            run(command)


def gather(chosen: list[Pin], options: Options, pythons: tuple[str, ...] = PYTHONS) -> list[Path]:
    """Return the wheels of the pins for all the Pythons, downloaded unless they came in a folder."""
    for python in () if options.offline else pythons:
        fetch(chosen, python, options.machine, options.wheels)
    wanted = {choose(pin, python, options.machine): pin for python in pythons for pin in chosen}
    for wheel, pin in wanted.items():
        path = options.wheels / wheel
        if not path.exists():
            raise BuildError(f"{path} is missing: fill the folder with `build.py wheels {options.wheels}`")
        if sha256(path) != pin.wheels[wheel]:
            raise BuildError(f"{path} is not the file that setup.cfg pins: delete it")
    return [options.wheels / wheel for wheel in sorted(wanted)]


def unpack_wheels(wheels: list[Path], target: Path) -> None:
    """Unpack wheels into one folder; raise BuildError if two of them disagree about a file."""
    origins: dict[str, Path] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as source:
            for name in source.namelist():
                path = target / name
                if name.endswith("/") or UNBUNDLED.search(name):
                    continue
                if ".data/" in name or name.endswith(".pth"):
                    raise BuildError(f"{wheel.name} holds {name}, which has no place in one folder of modules")
                data = source.read(name)
                if name in origins and path.read_bytes() != data:
                    raise BuildError(f"{wheel.name} and {origins[name].name} disagree about {name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                origins[name] = wheel


def add_package(target: Path) -> None:
    """Copy the program itself, and the systemd units that it installs, into the folder of modules."""
    clutter = shutil.ignore_patterns("__pycache__", ".*", "*.c")
    shutil.copytree(ROOT / PACKAGE, target / PACKAGE, ignore=clutter)
    if (ROOT / "systemd").is_dir():
        shutil.copytree(ROOT / "systemd", target / PACKAGE / "systemd", ignore=clutter)


def run_shiv(site_packages: Path, raw: Path, options: Options, scratch: Path) -> None:
    """Let shiv make an archive of the folder of modules, not yet compressed."""
    unpack_wheels(gather(pins("tools", *SHIV), options, PYTHONS[:1]), scratch / "shiv")
    env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    env["PYTHONPATH"] = str(scratch / "shiv")
    command = [sys.executable, "-W", "ignore", "-m", "shiv.cli", f"--site-packages={site_packages}"]
    command += [f"--output-file={raw}", f"--entry-point={PACKAGE}.__main__:main", f"--python={SHEBANG}"]
    run([*command, "--reproducible", "--uncompressed"], env)


def finish(raw: Path, machine: str, target: Path) -> None:
    """Write shiv's archive again, compressed, with our own quicker start in place of shiv's."""
    with zipfile.ZipFile(raw) as source:
        members = {name: source.read(name) for name in source.namelist() if not name.startswith("_bootstrap/")}
    members["_launcher.py"] = (ROOT / PACKAGE / "launcher.py").read_bytes()
    main = (ROOT / PACKAGE / "archive_main.py").read_text(encoding="utf-8")
    for mark, text in (("@MACHINE@", machine), ("@PYTHONS@", " ".join(PYTHONS)), ("@GLIBC@", GLIBC)):
        main = main.replace(mark, text)
    members["__main__.py"] = main.encode()
    digests = [f"{hashlib.sha256(data).hexdigest()} {name}" for name, data in sorted(members.items())]
    build_id = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]
    members["__main__.py"] = main.replace("@BUILD@", build_id).encode()
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(f"#!{SHEBANG}\n".encode())
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in sorted(members.items()):
                write_member(archive, name, data)
    partial.chmod(0o755)
    partial.replace(target)


def write_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a member that is the same whoever builds it; what starts the program needs no decompressor."""
    info = zipfile.ZipInfo(name)  # which dates it 1980
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_STORED if name == "__main__.py" else zipfile.ZIP_DEFLATED
    archive.writestr(info, data)


def inputs_digest(options: Options) -> str:
    """Return a digest of everything the archive is made from."""
    files = [path for folder in (PACKAGE, "systemd") for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = [path for path in files if "__pycache__" not in path.parts] + [ROOT / "setup.cfg", ROOT / "build.py"]
    text = "".join(f"{sha256(path)} {path.relative_to(ROOT)}\n" for path in sorted(sources))
    return hashlib.sha256(f"{options.machine}\n{text}".encode()).hexdigest()


def build(options: Options) -> int:
    """Make dist/kohakuriver.pyz and dist/SHA256SUMS."""
    with alone() as scratch, step(f"Building {options.pyz.relative_to(ROOT)} for CPython {', '.join(PYTHONS)}"):
        digest = inputs_digest(options)
        with step("Gathering wheels"):
            wheels = gather(pins("runtime"), options)
        with step(f"Assembling {len(wheels)} wheels and the program"):
            unpack_wheels(wheels, scratch / "site-packages")
            add_package(scratch / "site-packages")
        with step("Archiving with shiv"):
            DIST.mkdir(exist_ok=True)
            run_shiv(scratch / "site-packages", scratch / "raw.pyz", options, scratch)
            finish(scratch / "raw.pyz", options.machine, options.pyz)
        sums = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(DIST.glob("*.pyz")))
        (DIST / "SHA256SUMS").write_text(sums)
        options.record.write_text(f"{digest} {sha256(options.pyz)}")
        print(f"    {options.pyz.stat().st_size / 1e6:.1f} MB, sha256 {sha256(options.pyz)}")
    return 0


def build_if_needed(options: Options) -> None:
    """Make the archive unless the one that is there was made from the very same inputs."""
    made_from = options.record.read_text() if options.pyz.exists() and options.record.exists() else ""
    if made_from and made_from == f"{inputs_digest(options)} {sha256(options.pyz)}":
        print(f"==> {options.pyz.relative_to(ROOT)} is up to date")
    else:
        build(options)


def make_venv() -> None:
    """Make a .venv with nothing but pip in it; one that a link leads to is somebody else's, and stays."""
    if not importlib.util.find_spec("ensurepip"):
        raise BuildError("this Python has neither pip nor venv: run `apt-get install python3-venv`, or add --provision")
    if VENV.is_symlink():
        VENV.unlink()
    run([sys.executable, "-m", "venv", "--clear", str(VENV)])


def venv() -> str:
    """Return the Python of .venv, in which everything that the tests need is installed at its pinned version."""
    chosen = pins("runtime") + pins("tools")
    python = "{}.{}".format(*sys.version_info)
    wanted = requirements(chosen, python, platform.machine())
    state = f"{sys.version} {Path(sys.executable).resolve()}\n{wanted}"
    stamp = VENV / "installed"
    with alone() as scratch:
        if not stamp.exists() or stamp.read_text() != state:
            with step(f"Installing {len(chosen)} packages into .venv"):
                make_venv()
                (scratch / "requirements.txt").write_text(wanted)
                command = [str(VENV / "bin/python"), *PIP, "install"]
                run([*command, *ONLY_PINNED, f"--requirement={scratch}/requirements.txt"])
                stamp.write_text(state)
    return str(VENV / "bin/python")


def missing_system_packages(verb: str) -> list[str]:
    """Return the Debian packages that a verb needs and this machine lacks."""
    missing = [] if importlib.util.find_spec("ensurepip") else ["python3-venv"]
    for package, command in (pair.split(":") for pair in SYSTEM_PACKAGES.split() if verb in ("test", "bench")):
        if command and shutil.which(command):
            continue
        status = subprocess.run(["dpkg-query", "-Wf${Status}", package], check=False, capture_output=True).stdout
        if not status.endswith(b" installed"):
            missing.append(package)
    return missing


def provision(verb: str) -> None:
    """Install the system packages that the verb needs and this machine lacks."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError("--provision works as root on a Debian-like system; elsewhere see SYSTEM_PACKAGES in build.py")
    missing = missing_system_packages(verb)
    with step(f"Installing system packages: {', '.join(missing) or 'all are there'}"):
        if missing:
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            run(["apt-get", "update", "-q"], env)
            run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing], env)
            importlib.invalidate_caches()


def wheels(options: Options) -> int:
    """DIR: download into DIR the wheels that `--wheels DIR` then builds from without a network."""
    if len(options.extras) != 1:
        raise BuildError("say which folder the wheels shall go to: build.py wheels DIR")
    options = replace(options, wheels=Path(options.extras[0]).resolve(), offline=False)
    gather(pins("runtime"), options)
    gather(pins("tools", *SHIV), options, PYTHONS[:1])
    return 0


def run_python(python: str, *arguments: str) -> int:
    """Run a Python with the terminal's own input and output and return its exit code."""
    with subprocess.Popen([python, *arguments], cwd=ROOT) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # the terminal has told it, too, and it may have to clean up
            raise


def demo(options: Options) -> int:
    """[ARGS]: build if needed, then run the demo: a two-node cluster on this machine runs real tasks."""
    build_if_needed(options)
    return run_python(sys.executable, str(options.pyz), "demo", *options.extras)


def test(options: Options) -> int:
    """[PYTEST ARGS]: build if needed, then run the tests; with --no-skips, fail when a real suite could not run."""
    build_if_needed(options)
    return run_python(venv(), "-m", "tests", f"--pyz={options.pyz}", *options.extras)


def bench(options: Options) -> int:
    """[ARGS]: build if needed, measure everything beside its floor, and write dist/bench.json."""
    build_if_needed(options)
    measuring = ["tests.bench", f"--pyz={options.pyz}", f"--out={DIST / 'bench.json'}"]
    return run_python(venv(), "-m", *measuring, *options.extras)


def check(options: Options) -> int:
    """[--fix]: format, lint, types and shape; with --fix, repair what can be repaired first."""
    python, fix = venv(), "--fix" in options.extras
    checks = {
        "Format": ["ruff", "format", *RUFF_OPTIONS, *([] if fix else ["--check"]), *CHECKED],
        "Lint": ["ruff", "check", *RUFF_OPTIONS, RUFF_IGNORED, *(["--fix"] if fix else []), *CHECKED],
        "Types": ["mypy"],
        "Shape": ["pytest", "-q", "tests/test_shape.py"],
    }
    failed = []
    for title, arguments in checks.items():
        with step(title):
            if run_python(python, "-m", *arguments):
                failed.append(title)
    print(f"    failed: {', '.join(failed)}" if failed else "    all checks pass")
    return 1 if failed else 0


def pin(_options: Options) -> int:
    """Look up the newest versions of everything, and write them with their hashes into setup.cfg."""
    if sys.version_info[:2] != (3, 11):
        raise BuildError("pin with Python 3.11: pip reads `python_version` conditions for the Python that it runs on")
    tops = {"runtime": settings()["options"]["install_requires"].split()}
    tops["tools"] = settings()["options.extras_require"]["tools"].split()
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8").partition("\n[pins:runtime]")[0]
    found: dict[str, Pin] = {}
    for group, names in tops.items():
        before = set(found)
        for machine, python in itertools.product(MACHINES, PYTHONS):
            with step(f"Resolving {group} for CPython {python} on {machine}"):
                resolve(names, python, machine, found)
        text += f"\n[pins:{group}]\n"
        for name in sorted(set(found) - before):
            wheels = sorted(found[name].wheels.items())
            text += f"{name} = {found[name].version}\n" + "".join(f"    {digest}  {file}\n" for file, digest in wheels)
    (ROOT / "setup.cfg").write_text(text, encoding="utf-8")
    return 0


def resolve(names: list[str], python: str, machine: str, found: dict[str, Pin]) -> None:
    """Add to `found` what pip would install for a CPython on a machine, at the versions found before where there are."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(int(GLIBC[2:]), 4, -1)] + [f"manylinux2014_{machine}"]
    with tempfile.TemporaryDirectory() as scratch:
        constraints, report = Path(scratch, "constraints.txt"), Path(scratch, "report.json")
        constraints.write_text("".join(f"{one.name}=={one.version}\n" for one in found.values()))
        command = [*pip(), "install", "-q", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
        command += [f"--report={report}", f"--target={scratch}/target", f"--constraint={constraints}"]
        command += [f"--python-version={python}", "--implementation=cp", *(f"--platform={tag}" for tag in tags)]
        run([*command, *names])
        for item in json.loads(report.read_text())["install"]:
            name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
            file = unquote(item["download_info"]["url"].rsplit("/", 1)[-1])
            if name not in NOT_PINNED:
                wheels = found.setdefault(name, Pin(name, item["metadata"]["version"], {})).wheels
                wheels[file] = item["download_info"]["archive_info"]["hashes"]["sha256"]


VERBS = {verb.__name__: verb for verb in (build, demo, test, check, bench, wheels, pin)}


def parse(arguments: list[str]) -> tuple[str, Options]:
    """Return the verb and the options; what build.py does not know goes on to what the verb runs."""
    listing = "\n".join(f"  {name:8}{verb.__doc__}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(
        usage="python3 build.py [VERB] [options]",
        description=__doc__,
        epilog=f"verbs (build if none is given):\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--arch", choices=MACHINES, default=platform.machine(), help="machine to build for (this one)")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="build from a folder of wheels, without a network")
    parser.add_argument("--provision", action="store_true", help="first install missing system packages (root, apt)")
    verb = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "build"
    known, extras = parser.parse_known_args(arguments)
    if verb not in VERBS or (extras and verb in ("build", "pin")):
        parser.error(f"unknown: {verb if verb not in VERBS else ' '.join(extras)}")
    folder = (known.wheels or BUILD / "wheels").resolve()
    return verb, Options(known.arch, folder, known.wheels is not None, known.provision, extras)


def main() -> int:
    """Run a verb and return its exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036
        raise BuildError(f"needs Python 3.11 or newer, and this is {platform.python_version()}")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in step with what it runs
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where dockerd and ip live, also for users whose PATH lacks it
    verb, options = parse(sys.argv[1:])
    with step(f"build.py {verb}"):
        if options.provision:
            provision(verb)
        return VERBS[verb](options)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BuildError as error:
        sys.exit(f"build.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
