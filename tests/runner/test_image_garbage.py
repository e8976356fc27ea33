"""Images go when the disk is full, and then only such that the runner brought and nobody needs."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.model import runner_api
from kohakuriver.model.runner_api import Nothing
from kohakuriver.runner.image_garbage import LEAST_IDLE_SECONDS, Pins, condemned, percent_used
from kohakuriver.runner.image_ledger import Brought
from kohakuriver.system.image_hands import FoundImage, SeenImage
from tests.runner.stage import Stage, play
from tests.runner.test_images import NEWER, STEM, lab, with_images

NOW, LONG_AGO = 1_000_000.0, 1_000_000.0 - LEAST_IDLE_SECONDS


def image(number: int, *names: str, containers: int = 0) -> SeenImage:
    return SeenImage(f"sha256:{number}", names, 1, 0, {}, containers)


def going(seen: list[SeenImage], brought: dict[str, Brought], *pins: str) -> list[str]:
    return [each.id for each, _ in condemned(seen, brought, Pins(pins), NOW)]


def test_the_least_lately_used_go_first() -> None:
    brought = {f"sha256:{n}": Brought(f"x:{n}", LONG_AGO - n) for n in (1, 2, 3)}
    assert going([image(n, f"x:{n}") for n in (1, 3, 2)], brought) == ["sha256:3", "sha256:2", "sha256:1"]


def test_what_is_not_ours_or_used_or_pinned_or_new_stays() -> None:
    brought = {f"sha256:{n}": Brought("x:1", LONG_AGO) for n in (1, 2, 3)}
    assert going([image(9, "x:1")], brought) == []
    assert going([image(1, "x:1", containers=1)], brought) == []
    assert going([image(1, "x:1")], brought, "x:*") == []
    assert going([image(1, "x:1", "mine:1")], brought) == []  # somebody gave it another name
    assert going([image(1, "x:1")], {"sha256:1": Brought("x:1", LONG_AGO + 1)}) == []
    assert going([image(1)], brought) == ["sha256:1"]  # a newer one has its name now


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.lists(st.sampled_from(["a:1", "b:1", "p:1"]), max_size=2), st.integers(0, 1)),
        unique_by=lambda each: each[0],
    ),
    st.dictionaries(st.integers(1, 6), st.sampled_from(["a:1", "b:1", "p:1"])),
)
def test_never_what_somebody_else_needs(seen: list[Any], ours: dict[int, str]) -> None:
    images = [image(number, *names, containers=containers) for number, names, containers in seen]
    brought = {f"sha256:{number}": Brought(name, 0.0) for number, name in ours.items()}
    for each, how in condemned(images, brought, Pins(("p:*",)), NOW):
        assert each.id in brought and not each.containers and "p:1" not in each.names
        assert set(each.names) <= {how.name}


def test_a_full_disk_is_emptied_no_further_than_is_needed(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage, pinned_images=["kept:*"])
        daemon.images["not-ours:1"] = FoundImage("sha256:theirs", "sha256:theirs", 1, {})
        daemon.registry.update({"old:1": None, "kept:1": None, "new:1": None})
        for number, name in enumerate(("old:1", "kept:1", "new:1"), 1):
            await stage.execute("true", registry_image=name, task_id=number)
            await stage.told("ended", number)
            await stage.clock.advance(1.0)
        full = {"percent": 84.0}
        garbage = stage.runner.bench.garbage
        garbage.percent_used = lambda directory: full["percent"] - 10 * len(daemon.removed)
        await stage.clock.advance(LEAST_IDLE_SECONDS + 10)
        await garbage.collect()
        assert daemon.removed == []
        full["percent"] = 85.0
        await garbage.collect()
        assert daemon.removed == ["old:1"]
        told = {i.names[0]: (i.ours, i.pinned) for i in await stage.call(runner_api.IMAGES, Nothing())}
        assert told == {"not-ours:1": (False, False), "kept:1": (True, True), "new:1": (True, False)}

    play(tmp_path, script, runner=False)


def test_a_runner_knows_after_a_restart_what_it_brought(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        daemon = await with_images(stage)
        for number, stem in enumerate((STEM, NEWER), 1):
            await stage.execute("true", container_name="lab", tarball=lab(stage, stem), task_id=number)
            await stage.told("ended", number)
        before = dict(stage.runner.bench.images.ledger.brought)
        await stage.another_runner()
        assert stage.runner.bench.images.ledger.brought.keys() == before.keys() and len(before) == 2
        stage.runner.bench.garbage.percent_used = lambda directory: 99.0
        await stage.runner.bench.garbage.collect()
        assert daemon.removed == []  # they count as just used

    play(tmp_path, script, runner=False)


def test_a_disk_that_is_elsewhere_is_never_full(tmp_path: Path) -> None:
    assert 0 < percent_used(str(tmp_path)) < 100 and percent_used("/no/such/place") == 0
