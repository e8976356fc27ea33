"""Settings as they are declared: each has a meaning, a default that is within its own bounds, and one spelling."""

import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model import codec, settings
from kohakuriver.model.settings import PROGRAMS
from kohakuriver.model.settings_text import default_of, example_file, literal, reference_table
from kohakuriver.system.config_file import Sources, load

EVERY = [
    pytest.param(kind, field, id=f"{program}-{field.name}")
    for program, kind in PROGRAMS.items()
    for field in dataclasses.fields(kind)
]


@pytest.mark.parametrize(("kind", "field"), EVERY)
def test_every_setting_says_what_it_means_in_one_sentence(kind: type, field: "dataclasses.Field[Any]") -> None:
    about = field.metadata["about"]
    assert about.endswith(".") and "\n" not in about and about[0].isupper() or about.startswith("File")
    assert isinstance(field.metadata["secret"], bool)


@pytest.mark.parametrize(("kind", "field"), EVERY)
def test_every_default_is_of_its_type_and_within_its_bounds(kind: type, field: "dataclasses.Field[Any]") -> None:
    assert getattr(codec.decode(kind, {field.name: default_of(field)}), field.name) == default_of(field)


@pytest.mark.parametrize(("kind", "field"), EVERY)
def test_every_setting_is_spelled_alike_in_file_environment_and_flag(
    kind: type, field: "dataclasses.Field[Any]"
) -> None:
    name = field.name
    assert name == name.lower() and settings.file_key(name).isupper()
    assert settings.environment_name(name) == "KOHAKURIVER_" + settings.file_key(name)
    assert settings.flag_name(name)[2:].replace("-", "_") == name


def test_two_instances_do_not_share_a_list() -> None:
    first, second = settings.RunnerSettings(), settings.RunnerSettings()
    assert first.additional_mounts is not second.additional_mounts


@pytest.mark.parametrize("program", ["host", "runner"])
def test_the_example_file_names_every_key_with_meaning_and_default(program: str, tmp_path: Path) -> None:
    text = example_file(program)
    for field in dataclasses.fields(PROGRAMS[program]):
        assert f"\n# {field.metadata['about']}\n# {field.name.upper()} = " in text
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize("program", ["host", "runner"])
def test_the_example_file_with_every_hash_taken_away_sets_exactly_the_defaults(program: str, tmp_path: Path) -> None:
    kind: type[Any] = PROGRAMS[program]
    path = tmp_path / "config.py"
    path.write_text(example_file(program))
    assert load(kind, Sources(file=path)).settings == kind()
    keys = tuple(f"# {f.name.upper()} = " for f in dataclasses.fields(kind))
    path.write_text(
        "".join(line.removeprefix("# ") for line in example_file(program).splitlines(True) if line.startswith(keys))
    )
    loaded = load(kind, Sources(file=path))
    assert loaded.settings == kind()
    assert "default" not in loaded.origins.values()


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_reference_table_has_one_row_for_each_setting(program: str) -> None:
    rows = reference_table(program).splitlines()
    assert len(rows) == 2 + len(dataclasses.fields(PROGRAMS[program]))
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)


@pytest.mark.parametrize("value", [True, False, 0, 4096, 8_000_000_000, 1.5, "", 'a "quoted" ü', [], ["/a:/b"]])
def test_a_value_is_written_so_that_python_reads_it_back(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value
