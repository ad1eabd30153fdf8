"""Ways in which a process that uses pyiroh ends; run as a program with the name of one.

Each prints `ready` when its operations are under way, and must then end with the status that
`WAYS` tells and nothing from Rust on standard error.
"""

from __future__ import annotations

import asyncio
import sys
import threading

from pyiroh import Endpoint

ALPN = b"exit/0"
LOOPBACK = {"alpns": [ALPN], "bind_ipv4": "127.0.0.1:0", "bind_ipv6": None}


async def start() -> set[asyncio.Task[object]]:
    """Two endpoints, a stream between them, and operations on everything that never end."""
    one = await Endpoint.bind(**LOOPBACK)
    two = await Endpoint.bind(**LOOPBACK)

    async def accept():
        incoming = await two.accept()
        assert incoming is not None
        return await incoming.accept()

    dialled, accepted = await asyncio.gather(one.connect(two.addr(), ALPN), accept())
    send, recv = await dialled.open_bi()
    await send.write_all(b"x")
    their_send, their_recv = await accepted.accept_bi()

    async def chatter() -> None:
        while True:
            await send.write_all(b"x" * 1000)
            await their_recv.read(1000)

    async def hold() -> None:
        # Everything stays referenced until the very end.
        await asyncio.gather(
            recv.read(1), accepted.accept_bi(), one.accept(), two.accept(), their_send.stopped()
        )

    return {asyncio.create_task(work()) for work in (chatter, hold)}


async def timers(count: int) -> set[asyncio.Task[None]]:
    """Tasks that loop over a trivial operation, so that results arrive at every moment."""
    endpoint = await Endpoint.bind(**LOOPBACK)

    async def loop() -> None:
        while True:
            await endpoint.add_external_addr("192.0.2.1:1")

    return {asyncio.create_task(loop()) for _ in range(count)}


async def ready() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def exit_in_loop() -> None:
    tasks = [await start(), await timers(30)]
    await ready()
    sys.exit(3 if tasks else 0)


async def exit_busy() -> None:
    tasks = await timers(20)
    await ready()
    sys.exit(3 if tasks else 0)


async def uncaught() -> None:
    tasks = [await start(), await timers(30)]
    await ready()
    raise KeyError(len(tasks))


async def normal_return() -> None:
    tasks = [await start(), await timers(5)]
    await ready()
    assert tasks


async def forever() -> None:
    tasks = [await start(), await timers(20)]
    await ready()
    await asyncio.Event().wait()
    assert tasks


def daemon_thread() -> None:
    started = threading.Event()

    async def work() -> None:
        tasks = [await start(), await timers(20)]
        await ready()
        started.set()
        await asyncio.Event().wait()
        assert tasks

    threading.Thread(target=lambda: asyncio.run(work()), daemon=True).start()
    started.wait()


def closed_loop() -> None:
    """The loop is closed, its tasks and their operations are not."""
    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(timers(20)), loop.run_until_complete(start())
    loop.run_until_complete(ready())
    loop.close()
    for group in tasks:
        for task in group:
            task._log_destroy_pending = False  # type: ignore[attr-defined] # it is on purpose


WAYS = {
    "exit_in_loop": (lambda: asyncio.run(exit_in_loop()), 3),
    "exit_busy": (lambda: asyncio.run(exit_busy()), 3),
    "uncaught": (lambda: asyncio.run(uncaught()), 1),
    "normal_return": (lambda: asyncio.run(normal_return()), 0),
    "daemon_thread": (daemon_thread, 0),
    "closed_loop": (closed_loop, 0),
    "interrupted": (lambda: asyncio.run(forever()), 130),
}

if __name__ == "__main__":
    WAYS[sys.argv[1]][0]()
