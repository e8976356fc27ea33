"""The built file starts on every Python it serves, quickly the second time, and refuses every other machine."""

import ast
import os
import sys
import zipfile
from pathlib import Path

import pytest

from tests.artifact.archives import SERVED, Starter, installed_pythons, small_archive

pytestmark = pytest.mark.artifact

PYTHONS = installed_pythons()
IMPORT_EVERYTHING = """
import importlib.machinery, importlib.util, os, pathlib, sys

def main() -> int:
    folder = pathlib.Path(__file__).parents[1]
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    compiled = [*folder.rglob("*" + suffix), *folder.rglob("*.abi3.so")]
    for path in compiled:
        name = str(path.relative_to(folder)).replace("/", ".").split(".cpython-")[0].removesuffix(".abi3.so")
        importlib.import_module(name)
    for name in ("aiohttp.web", "asyncssh", "bcrypt", "docker", "pyroute2"):
        module = importlib.import_module(name)
        assert pathlib.Path(module.__file__).is_relative_to(folder), module.__file__
    print(len(compiled), len(list(folder.rglob("*.so"))))
    return 0
"""


def with_program(pyz: Path, target: Path, program: str) -> Path:
    """Copy the built archive with another program in it."""
    with zipfile.ZipFile(pyz) as built, zipfile.ZipFile(target, "w") as archive:
        for name in built.namelist():
            data = program if name == "site-packages/kohakuriver/__main__.py" else built.read(name)
            archive.writestr(name, data)
    return target


@pytest.mark.parametrize("version", sorted(set(PYTHONS) & set(SERVED)))
def test_every_module_of_the_closure_loads_from_the_archive(pyz: Path, tmp_path: Path, version: str) -> None:
    archive = with_program(pyz, tmp_path / "all.pyz", IMPORT_EVERYTHING)
    code, out, err = Starter(tmp_path / "root", PYTHONS[version]).run(archive)
    assert (code, err) == (0, "")
    loaded, all_extensions = map(int, out.split())
    assert loaded == all_extensions > 8, "extension modules for another Python were unpacked"


def test_the_program_runs_from_the_archive(pyz: Path, tmp_path: Path) -> None:
    code, out, err = Starter(tmp_path / "root").run(pyz, "version")
    assert (code, err) == (0, "")
    assert out.startswith("kohakuriver ")


def test_the_archive_is_an_executable_by_itself(pyz: Path, tmp_path: Path) -> None:
    assert Starter(tmp_path / "root", Path("/usr/bin/env")).run(pyz, "version")[0] == 0
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_a_warm_start_needs_neither_the_launcher_nor_the_archive_s_contents(pyz: Path, tmp_path: Path) -> None:
    archive, starter = small_archive(pyz, tmp_path / "a.pyz"), Starter(tmp_path / "root")
    cold, warm = starter.probe(archive), starter.probe(archive)
    assert cold["folder"] == warm["folder"]
    assert {"_launcher", "zipfile"} <= set(cold["modules"])
    assert not {"_launcher", "zipfile"} & set(warm["modules"])


def test_a_warm_start_writes_nothing(pyz: Path, tmp_path: Path) -> None:
    starter = Starter(tmp_path / "root")
    starter.run(pyz, "version")
    before = {path: path.stat().st_mtime_ns for path in starter.root.rglob("*")}
    assert starter.run(pyz, "version")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in starter.root.rglob("*")} == before
    sources = [path for path in before if path.suffix == ".py"]
    tag = sys.implementation.cache_tag
    assert len(sources) > 400
    assert [path for path in sources if path.parent / f"__pycache__/{path.stem}.{tag}.pyc" not in before] == []


@pytest.mark.parametrize("version", sorted(set(PYTHONS) & set(SERVED)))
def test_the_byte_code_is_what_python_loads(pyz: Path, tmp_path: Path, version: str) -> None:
    """A module whose source is gone wrong still runs, as it was when it was compiled."""
    archive, starter = small_archive(pyz, tmp_path / "a.pyz"), Starter(tmp_path / "root", PYTHONS[version])
    folder = Path(starter.probe(archive)["folder"])
    (folder / "kohakuriver/late.py").write_text("raise SystemExit('compiled again')")
    assert starter.probe(archive)["folder"] == str(folder)


def test_the_program_s_exit_code_is_the_file_s(pyz: Path, tmp_path: Path) -> None:
    archive = small_archive(pyz, tmp_path / "a.pyz", more={"kohakuriver/late.py": "CODE = 42"})
    assert [Starter(tmp_path / "root").run(archive)[0] for _ in ("cold", "warm")] == [42, 42]


def test_modules_elsewhere_on_the_path_do_not_get_before_the_archive_s_own(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "kohakuriver.py").write_text("raise SystemExit('the wrong one')")
    starter = Starter(tmp_path / "root", env={"PYTHONPATH": str(tmp_path)})
    said = starter.probe(small_archive(pyz, tmp_path / "a.pyz"))
    assert said["path"][0] == said["folder"]


def test_byte_code_kept_elsewhere_by_the_user_is_left_alone(pyz: Path, tmp_path: Path) -> None:
    starter = Starter(tmp_path / "root", env={"PYTHONPYCACHEPREFIX": str(tmp_path / "cache")})
    folder = Path(starter.probe(small_archive(pyz, tmp_path / "a.pyz"))["folder"])
    assert list((folder / "kohakuriver/__pycache__").glob("late.*.pyc"))
    assert not list((tmp_path / "cache").rglob("late.*"))


@pytest.mark.parametrize(
    ("constants", "reason"),
    [
        ({"PYTHONS": "3.97 3.98"}, "needs CPython 3.97 or 3.98"),
        ({"MACHINE": "sparc64"}, "on sparc64 Linux"),
        ({"GLIBC": "99.1"}, "with glibc 99.1 or newer"),
    ],
)
def test_a_machine_it_does_not_serve_gets_one_sentence(
    pyz: Path, tmp_path: Path, constants: dict[str, str], reason: str
) -> None:
    starter = Starter(tmp_path / "root")
    code, out, err = starter.run(small_archive(pyz, tmp_path / "a.pyz", constants))
    assert (code, out) == (1, "")
    assert reason in err
    assert err.count("\n") == 1
    assert err.endswith(".\n")
    assert not starter.root.exists()


@pytest.mark.parametrize("version", sorted(set(PYTHONS) - set(SERVED)) or ["none is installed"])
def test_every_other_python_on_this_machine_gets_one_sentence(pyz: Path, tmp_path: Path, version: str) -> None:
    if version not in PYTHONS:
        return  # the syntax is proven below for all of them
    code, out, err = Starter(tmp_path / "root", PYTHONS[version]).run(pyz, "version")
    assert (code, out) == (1, "")
    assert f"but this is CPython {version} on {os.uname().machine} Linux" in err
    assert err.count("\n") == 1


def test_what_refuses_can_be_parsed_by_any_python_3(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as built:
        tree = ast.parse(built.read("__main__.py"), feature_version=(3, 4))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr))]
