"""Two runners that claim one name."""

from pathlib import Path

import pytest

from kohakuriver.model.errors import Conflict, NotFound
from tests.host.rig import House, play


def test_a_second_runner_of_one_name_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    async def script(house: House) -> None:
        first = await house.runner()
        task_id = await house.submit("stay")
        await house.becomes(task_id, "running")
        twin = await house.runner("n1", joins=False)
        twin.instance = "twin"
        with pytest.raises(Conflict, match="alive"):
            await twin.register()
        with pytest.raises(NotFound):
            await twin.heartbeat()
        assert (await house.task(task_id))["status"] == "running" and (await house.get("/api/nodes/n1"))[
            "url"
        ] == first.url
        await house.passes(15)
        await twin.register()
        assert (await house.get("/api/nodes/n1"))["url"] == twin.url

    play(tmp_path, script)
