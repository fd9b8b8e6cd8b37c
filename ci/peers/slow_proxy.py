"""A proxy that makes a server slower by a share: every piece of an answer is held until the time since the request was that much longer.

    python3 ci/peers/slow_proxy.py --to 127.0.0.1:8090 --port 8190 --slower 10

Without --slower it holds nothing, and costs what any proxy does: so both sides of a check go through one.
"""

import argparse
import asyncio


async def relay(reader, writer, a):
    """One connection of a client: a connection of its own to the server, request by request."""
    theirs = await asyncio.open_connection(*a.to)
    began = 0.0
    loop, held = asyncio.get_running_loop(), asyncio.Queue()

    async def ask():
        nonlocal began
        while data := await reader.read(65536):
            began = loop.time()
            theirs[1].write(data)
            await theirs[1].drain()

    # Read as it comes, or a piece that is held would make the next ones later still.
    async def answer():
        while data := await theirs[0].read(65536):
            await held.put((began + (loop.time() - began) * (1 + a.slower / 100), data))
        await held.put((loop.time(), b""))

    async def hold():
        while True:
            due, data = await held.get()
            if not data:
                return
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(data)
            await writer.drain()

    # Whoever ends a connection, client or server, ends both; what is held is delivered before.
    tasks = [asyncio.create_task(side()) for side in (ask, hold, answer)]
    try:
        await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        theirs[1].close()
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, type=lambda t: (t.rpartition(":")[0], int(t.rpartition(":")[2])))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slower", type=float, default=0.0, help="in per cent")
    a = parser.parse_args()
    async with await asyncio.start_server(lambda r, w: relay(r, w, a), "127.0.0.1", a.port) as server:
        await server.serve_forever()


asyncio.run(main())
