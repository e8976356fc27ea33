"""The floor of HTTP figures: a bare aiohttp server that answers with ready-made values or files and does nothing else."""

import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web


async def serve(port: int, folder: Path) -> None:
    """Answer /one, /post, /file/NAME (a JSON file of `folder`, loaded once and dumped at each request), /raw/NAME."""
    loaded: dict[str, object] = {}

    async def one(request: web.Request) -> web.Response:
        return web.json_response({"hello": "world"})

    async def post(request: web.Request) -> web.Response:
        await request.json()
        return web.json_response({"hello": "world"})

    async def dump(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in loaded:
            loaded[name] = json.loads((folder / name).read_text())
        return web.json_response(loaded[name])

    async def raw(request: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / request.match_info["name"])

    app = web.Application()
    app.add_routes(
        [web.get("/one", one), web.post("/post", post), web.get("/file/{name}", dump), web.get("/raw/{name}", raw)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
