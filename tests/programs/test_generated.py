"""Text in files that is computed from the tables is as the tables say now."""

import pytest

from kohakuriver.model import host_api, runner_table
from kohakuriver.programs import generated

STALE = "run `python3 -m kohakuriver.programs.generated`"


def test_the_api_page_is_what_the_tables_say() -> None:
    assert generated.API_PAGE.read_text("utf-8") == generated.api_page(), STALE


def test_the_readme_tells_of_every_setting_as_it_is() -> None:
    readme = generated.README.read_text("utf-8")
    assert readme == generated.with_settings(readme), STALE


def test_the_api_page_has_one_line_for_every_route() -> None:
    lines = generated.api_page().splitlines()
    for route in (*host_api.ROUTES, *runner_table.ROUTES):
        assert sum(f"`{route.method} {route.path}` | {route.needs.label} |" in line for line in lines) == 1, route.name


def test_a_readme_without_a_place_for_the_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="settings"):
        generated.with_settings("# a README\n")
