"""The decisions of build.py: which wheel fits, what may lie in one folder, what the command line means."""

import zipfile
from pathlib import Path

import pytest

import build

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("wheel", "python", "machine", "fitting"),
    [
        ("a-1-py3-none-any.whl", "3.11", "x86_64", True),
        ("a-1-py2.py3-none-any.whl", "3.13", "aarch64", True),
        ("a-1-py2-none-any.whl", "3.11", "x86_64", False),
        ("a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "3.11", "x86_64", True),
        ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", "3.12", "x86_64", False),
        ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", "3.11", "aarch64", False),
        ("a-1-cp313-cp313t-manylinux_2_17_x86_64.whl", "3.13", "x86_64", False),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", "3.13", "x86_64", True),
        ("a-1-cp313-abi3-manylinux_2_28_x86_64.whl", "3.12", "x86_64", False),
        ("a-1-py3-none-manylinux_2_17_aarch64.whl", "3.12", "aarch64", True),
        ("a-1-1build-cp312-cp312-manylinux_2_17_aarch64.whl", "3.12", "aarch64", True),
    ],
)
def test_a_wheel_fits_by_the_tags_in_its_name(wheel: str, python: str, machine: str, fitting: bool) -> None:
    assert build.fits(wheel, python, machine) is fitting


def test_a_compiled_wheel_is_chosen_before_a_pure_one() -> None:
    compiled, pure = "a-1-cp312-cp312-manylinux_2_17_x86_64.whl", "a-1-py3-none-any.whl"
    pin = build.Pin("a", "1", {pure: DIGEST, compiled: DIGEST})
    assert build.choose(pin, "3.12", "x86_64") == compiled
    assert build.choose(pin, "3.13", "x86_64") == pure


def test_a_pin_without_a_wheel_for_a_python_is_an_error() -> None:
    pin = build.Pin("a", "1", {"a-1-cp312-cp312-manylinux_2_17_x86_64.whl": DIGEST})
    with pytest.raises(build.BuildError, match=r"a 1 has no pinned wheel for CPython 3\.13 on x86_64"):
        build.choose(pin, "3.13", "x86_64")


@pytest.mark.parametrize("machine", build.MACHINES)
@pytest.mark.parametrize("python", build.PYTHONS)
def test_every_pin_has_a_wheel_for_every_python_and_machine(python: str, machine: str) -> None:
    for pin in build.pins("runtime") + build.pins("tools"):
        assert len(pin.wheels[build.choose(pin, python, machine)]) == len(DIGEST)


def test_the_closure_begins_with_the_five_libraries() -> None:
    tops = build.settings()["options"]["install_requires"].split()
    assert tops == ["aiohttp", "asyncssh", "bcrypt", "docker", "pyroute2"]
    assert set(tops) < {pin.name for pin in build.pins("runtime")}
    assert not {pin.name for pin in build.pins("runtime")} & {pin.name for pin in build.pins("tools")}


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(folder / name, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return folder / name


def test_wheels_may_share_a_file_that_is_the_same(tmp_path: Path) -> None:
    first = wheel(
        tmp_path, "a-1-cp311-cp311-x.whl", {"a.py": "same", "a.cpython-311-x.so": "1", "a.pyi": "", "a.h": ""}
    )
    second = wheel(tmp_path, "a-1-cp312-cp312-x.whl", {"a.py": "same", "a.cpython-312-x.so": "2"})
    build.unpack_wheels([first, second], tmp_path / "modules")
    names = sorted(path.name for path in (tmp_path / "modules").iterdir())
    assert names == ["a.cpython-311-x.so", "a.cpython-312-x.so", "a.py"]


def test_wheels_that_disagree_about_a_file_are_an_error(tmp_path: Path) -> None:
    first = wheel(tmp_path, "a-1-cp311-cp311-x.whl", {"a.so": "for 3.11"})
    second = wheel(tmp_path, "a-1-cp312-cp312-x.whl", {"a.so": "for 3.12"})
    with pytest.raises(
        build.BuildError, match=r"a-1-cp312-cp312-x\.whl and a-1-cp311-cp311-x\.whl disagree about a\.so"
    ):
        build.unpack_wheels([first, second], tmp_path / "modules")


@pytest.mark.parametrize("name", ["a.pth", "a-1.data/scripts/a"])
def test_a_wheel_that_needs_an_installer_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(build.BuildError, match="no place in one folder"):
        build.unpack_wheels([wheel(tmp_path, "a-1-py3-none-any.whl", {name: ""})], tmp_path / "modules")


def offline(folder: Path) -> build.Options:
    return build.Options("x86_64", folder, True, False, [])


def test_a_wheel_that_is_not_as_pinned_is_an_error(tmp_path: Path) -> None:
    pin = build.Pin("a", "1", {"a-1-py3-none-any.whl": DIGEST})
    with pytest.raises(build.BuildError, match=r"a-1-py3-none-any\.whl is missing: fill the folder"):
        build.gather([pin], offline(tmp_path))
    wheel(tmp_path, "a-1-py3-none-any.whl", {"a.py": "tampered with"})
    with pytest.raises(build.BuildError, match="is not the file that setup.cfg pins"):
        build.gather([pin], offline(tmp_path))


def test_requirements_allow_one_wheel_of_each_pin() -> None:
    pin = build.Pin("a", "1", {"a-1-cp312-cp312-x86_64.whl": "1" * 64, "a-1-cp313-cp313-x86_64.whl": "2" * 64})
    assert build.requirements([pin], "3.13", "x86_64") == f"a==1 --hash=sha256:{'2' * 64}\n"


def test_what_build_py_does_not_know_goes_to_the_tests() -> None:
    verb, options = build.parse(["test", "--provision", "-k", "lifecycle and not slow", "-x", "tests/model"])
    assert (verb, options.provision) == ("test", True)
    assert options.extras == ["-k", "lifecycle and not slow", "-x", "tests/model"]


def test_building_is_what_is_done_without_a_verb(tmp_path: Path) -> None:
    verb, options = build.parse(["--arch", "aarch64", "--wheels", str(tmp_path)])
    assert (verb, options.machine, options.wheels, options.offline) == ("build", "aarch64", tmp_path, True)
    assert options.pyz.name == "kohakuriver-aarch64.pyz"


@pytest.mark.parametrize("arguments", [["nonsense"], ["build", "--nonsense"], ["--arch", "sparc64"]])
def test_a_command_line_that_means_nothing_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        build.parse(arguments)
    assert raised.value.code == 2
    assert "usage: python3 build.py" in capsys.readouterr().err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build.parse(["--help"])
    said = capsys.readouterr().out
    assert all(f"\n  {verb}" in said for verb in ("build", "demo", "test", "check", "bench", "wheels", "pin"))
