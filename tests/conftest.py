"""What every test may ask for: the built file; and the rule that a real suite must not be skipped when it counts."""

import gc
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.docker_daemon import docker_daemon

__all__ = ["docker_daemon"]

REAL_SUITES = {"artifact", "docker"}
ONE_AFTER_THE_OTHER = REAL_SUITES | {"alone"}  # the rest is the fast suite, of which any two tests may run at once


class Passed:
    """The real suites of which a test has passed, in whichever process."""

    def __init__(self) -> None:
        self.suites: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.suites.update(getattr(report, "suites", ()))


PASSED = pytest.StashKey[Passed]()


def pytest_addoption(parser: pytest.Parser) -> None:
    built = Path(__file__).parents[1] / "dist/kohakuriver.pyz"
    parser.addoption("--pyz", type=Path, default=built, help="the built file that the artifact tests run")
    parser.addoption(
        "--no-skips", action="store_true", help="fail if a test of a real suite is skipped, or none passes"
    )
    parser.addoption("--suite", choices=["fast", "real"], help="only what may run at once, or only the rest")
    parser.addoption("--tally", type=Path, help="a file that gets the numbers of what passed, failed and was skipped")


def pytest_configure(config: pytest.Config) -> None:
    """A shell has SIGINT ignored in what it starts in the background, and whatever the tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[PASSED] = Passed()
    config.pluginmanager.register(config.stash[PASSED])


def suites_of(item: pytest.Item) -> set[str]:
    """The suites that a test belongs to; those of the fast one to none."""
    return ONE_AFTER_THE_OTHER & {marker.name for marker in item.iter_markers()}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of the suite that was asked for."""
    suite = config.getoption("--suite")
    if suite:
        config.hook.pytest_deselected(items=[item for item in items if bool(suites_of(item)) != (suite == "real")])
        items[:] = [item for item in items if bool(suites_of(item)) == (suite == "real")]


@pytest.fixture(scope="session")
def pyz(request: pytest.FixtureRequest) -> Path:
    """The built file."""
    path: Path = request.config.getoption("--pyz")
    if not path.exists():
        pytest.skip(f"{path} is not built: run `python3 build.py`")
    return path.resolve()


def fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that says why it was skipped."""
    if report.skipped and not hasattr(report, "wasxfail"):
        report.longrepr = f"--no-skips: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}"
        report.outcome = "failed"


def pytest_collection_finish() -> None:
    """Modules and collected tests stay to the end: whoever looks for garbage need not go through them each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if collector.config.getoption("--no-skips"):
        fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    suites = sorted(REAL_SUITES & suites_of(item))
    if suites and item.config.getoption("--no-skips"):
        fail_skipped(report)
    setattr(report, "suites", suites)  # noqa: B010  # it goes with the report to the process that counts
    return report


def unproven(config: pytest.Config) -> set[str]:
    """The real suites that had to run and of which no test has passed."""
    is_part = config.getoption("--suite") == "fast" or hasattr(config, "workerinput")
    if is_part or not config.getoption("--no-skips") or config.getoption("--collect-only"):
        return set()
    return REAL_SUITES - config.stash[PASSED].suites


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if unproven(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for suite in sorted(unproven(config)):
        terminalreporter.write_line(f"--no-skips: no test marked `{suite}` has passed", red=True)
    if tally := config.getoption("--tally"):
        parts, _ = terminalreporter.build_summary_stats_line()
        tally.write_text(", ".join(text for text, _ in parts))
