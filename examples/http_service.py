"""An HTTP service in asyncio: each request is a row, and writing never blocks the loop.

python examples/http_service.py [FOLDER] [--port 8080]
curl -d '{"sensor": "inlet", "celsius": 71.5}' localhost:8080/readings; curl localhost:8080/readings
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from typing import TypedDict

from aiohttp import web

import edgeshard


class Reading(TypedDict):
    sensor: str
    celsius: float


def application(folder: str) -> web.Application:
    store = edgeshard.Store(folder)
    shard: edgeshard.Shard

    async def post(request: web.Request) -> web.Response:
        writing = None
        try:
            writing = shard.awrite(await request.json(), table=Reading)
            return web.json_response({"seq": await writing}, status=201)
        except (ValueError, edgeshard.RecordError) as error:  # it is not JSON, or not a Reading
            return web.json_response({"error": getattr(error, "cause", str(error))}, status=400)
        except asyncio.CancelledError:  # the client went away; the row is stored or not, and this says which
            request.app.logger.info("kept" if writing and writing.kept else "not stored")
            raise

    async def get(request: web.Request) -> web.Response:
        rows = await store.aquery("SELECT sensor, max(celsius) AS celsius FROM reading GROUP BY sensor", fresh=True)
        return web.json_response([row._asdict() for row in rows])

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        nonlocal shard
        with store.shard(f"http-{os.getpid()}", durability="power") as shard, store.watching():
            yield

    app = web.Application()
    app.add_routes([web.post("/readings", post), web.get("/readings", get)])
    app.cleanup_ctx.append(lifetime)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    print("the store is", folder := options.folder or tempfile.mkdtemp(prefix="edgeshard-http-"), flush=True)
    web.run_app(application(folder), host="127.0.0.1", port=options.port)
