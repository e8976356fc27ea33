"""Which cluster a runner belongs to: learned once, kept, and not changed under running workloads."""

import asyncio
from pathlib import Path

from kohakuriver.runner.cluster import FACT, Cluster
from kohakuriver.runner.store import Store
from tests.runner.stage import Stage, key, play


def test_it_is_learned_once_and_known_after_a_restart(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        assert stage.runner.bench.cluster.id == "riverbed"
        await stage.execute("sleep", "60")
        await stage.told("running")
        assert stage.node.workloads[key()].spec.labels["kohakuriver.cluster"] == "riverbed"
        await stage.stop_host()
        await stage.another_runner()
        assert stage.runner.bench.cluster.id == "riverbed"

    play(tmp_path, script)


def test_a_host_of_another_cluster_counts_from_the_next_start_on(tmp_path: Path) -> None:
    async def whole() -> None:
        store = Store(tmp_path / "runner.db")
        for holds, told, known_next in ((False, "a", "a"), (True, "b", "a"), (False, "b", "b")):
            cluster = await Cluster.from_store(store)
            before = cluster.id
            await cluster.learn(told, holds)
            assert cluster.id == (before or told), "the names of workloads do not change while the program runs"
            assert cluster.told == told
            assert await store.fact(FACT) == known_next
        store.close()

    asyncio.run(whole())


def test_the_admin_is_told_of_another_cluster(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.host.cluster_id, stage.host.knows = "elsewhere", False
        await stage.until(lambda: len(stage.host.registers) == 2, pass_seconds=0.5)
        await stage.until(lambda: stage.host.heartbeats and stage.host.heartbeats[-1].warnings, pass_seconds=0.5)
        assert "joined another cluster before (riverbed)" in stage.host.heartbeats[-1].warnings[0]

    play(tmp_path, script)
