"""What build.py makes: the same file whoever builds it, with the pinned closure in it and nothing else."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import build
from tests.artifact.archives import SERVED, Starter, installed_pythons

pytestmark = [pytest.mark.artifact, pytest.mark.slow, pytest.mark.timeout(400)]

TOP = Path(build.__file__).parent
ELF_MACHINE = {"x86_64": 62, "aarch64": 183}


def copy_sources(source: Path, target: Path) -> Path:
    """Copy what is built from, and give the files other times and modes."""
    target.mkdir()
    for name in ("kohakuriver", "systemd"):
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("build.py", "setup.cfg"):
        shutil.copyfile(source / name, target / name)
    for path in target.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    return target


def run_build(folder: Path, *arguments: str | Path, python: str | Path = sys.executable, **variables: str) -> str:
    """Run a folder's build.py and return its output; without a network if there are wheels to build from."""
    before = ["unshare", "--net"] if "--wheels" in arguments and os.geteuid() == 0 else []
    command: list[str | Path] = [*before, python, folder / "build.py", *arguments]
    env = {**os.environ, **variables}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built from, as it was when the tests began."""
    return copy_sources(TOP, tmp_path_factory.mktemp("sources") / "checkout")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    """A folder of wheels, filled by `build.py wheels` from those at hand and the registry."""
    folder = tmp_path_factory.mktemp("wheels")
    for path in (TOP / "build/wheels").glob("*.whl"):
        shutil.copy(path, folder)
    run_build(sources, "wheels", folder, "--arch=x86_64")
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, sources: Path, wheels: Path) -> Path:
    """A file for x86_64 that has been built from wheels alone."""
    folder = copy_sources(sources, tmp_path_factory.mktemp("built") / "checkout")
    run_build(folder, "--arch=x86_64", "--wheels", wheels)
    return folder / "dist/kohakuriver.pyz"


@pytest.mark.parametrize("version", sorted(set(installed_pythons()) & set(SERVED)))
def test_two_builds_are_one_file(sources: Path, built: Path, wheels: Path, tmp_path: Path, version: str) -> None:
    again = copy_sources(sources, tmp_path / "a checkout elsewhere")
    variables = {"TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": "5", "LC_ALL": "C"}
    run_build(again, "--arch=x86_64", "--wheels", wheels, python=installed_pythons()[version], **variables)
    assert (again / "dist/kohakuriver.pyz").read_bytes() == built.read_bytes()


def test_the_sums_beside_the_file_are_true(built: Path) -> None:
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    assert (built.parent / "SHA256SUMS").read_text() == f"{digest}  kohakuriver.pyz\n"


def test_a_file_is_built_again_only_when_it_has_to_be(sources: Path, wheels: Path, tmp_path: Path) -> None:
    folder = copy_sources(sources, tmp_path / "checkout")
    pyz = folder / "dist/kohakuriver.pyz"

    def build_if_needed() -> str:
        probe = "import build, sys; build.build_if_needed(build.parse(sys.argv[1:])[1])"
        command = [sys.executable, "-c", probe, "--arch=x86_64", f"--wheels={wheels}"]
        return str(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)

    assert "Archiving" in build_if_needed()
    assert build_if_needed() == "==> dist/kohakuriver.pyz is up to date\n"
    whole = pyz.read_bytes()
    pyz.write_bytes(whole[:-1])
    assert "Archiving" in build_if_needed()
    assert pyz.read_bytes() == whole
    with (folder / "kohakuriver/__init__.py").open("a") as source:
        source.write("# a change\n")
    assert "Archiving" in build_if_needed()
    assert pyz.read_bytes() != whole


def members(pyz: Path) -> set[str]:
    with zipfile.ZipFile(pyz) as archive:
        return set(archive.namelist())


def test_the_file_holds_the_pinned_closure_and_nothing_else(pyz: Path) -> None:
    pattern = r"site-packages/([^/]+)-([^/-]+)\.dist-info/METADATA"
    found = {match.groups() for name in members(pyz) if (match := re.fullmatch(pattern, name))}
    normal = {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found}
    assert normal == {(pin.name, pin.version) for pin in build.pins("runtime")}
    outside = {name for name in members(pyz) if not name.startswith("site-packages/")}
    assert outside == {"__main__.py", "_launcher.py", "environment.json"}


def test_the_file_holds_what_programs_need_and_no_more(pyz: Path) -> None:
    assert pyz.stat().st_size <= 40_000_000
    endings = {Path(name).suffix for name in members(pyz)}
    assert not endings & {".pyc", ".pyi", ".pyx", ".pxd", ".h", ".c", ".pth", ".whl", ".gz"}
    assert not [name for name in members(pyz) if "/tests/" in name or "__pycache__" in name]


def test_extension_modules_for_every_python_lie_side_by_side(pyz: Path) -> None:
    tagged: dict[str, set[str]] = {}
    for name in members(pyz):
        if match := re.fullmatch(r"(.+)\.cpython-3(\d+)-\w+-linux-gnu\.so", name):
            tagged.setdefault(f"3.{match[2]}", set()).add(match[1])
    assert set(tagged) == set(SERVED)
    assert len({frozenset(modules) for modules in tagged.values()}) == 1


def test_the_systemd_units_travel_in_the_file(pyz: Path) -> None:
    units = {f"site-packages/kohakuriver/systemd/{path.name}" for path in (TOP / "systemd").glob("*.service")}
    assert units
    assert units <= members(pyz)


def machines_of(pyz: Path) -> set[int]:
    """The machines (ELF header, e_machine) that the extension modules in an archive are for."""
    with zipfile.ZipFile(pyz) as archive:
        modules = [archive.read(name) for name in archive.namelist() if name.endswith(".so")]
    assert all(module.startswith(b"\x7fELF") for module in modules)
    return {int.from_bytes(module[18:20], "little") for module in modules}


def test_the_file_for_arm_is_built_on_any_machine(sources: Path, tmp_path: Path) -> None:
    folder = copy_sources(sources, tmp_path / "checkout")
    if (TOP / "build/wheels").exists():
        shutil.copytree(TOP / "build/wheels", folder / "build/wheels")
    run_build(folder, "--arch=aarch64")
    pyz = folder / "dist/kohakuriver-aarch64.pyz"
    assert machines_of(pyz) == {ELF_MACHINE["aarch64"]}
    assert "kohakuriver-aarch64.pyz" in (folder / "dist/SHA256SUMS").read_text()
    if os.uname().machine != "aarch64":
        code, _, err = Starter(tmp_path / "root").run(pyz, "version")
        assert (code, err.count("\n")) == (1, 1)
        assert "on aarch64 Linux" in err


def test_the_file_is_for_the_machine_that_it_says(built: Path) -> None:
    assert machines_of(built) == {ELF_MACHINE["x86_64"]}
