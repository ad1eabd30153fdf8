"""A forked child has none of our threads: it is told so, and can end."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, os, sys
import pyiroh
from pyiroh import Endpoint

LOOPBACK = {"bind_ipv4": "127.0.0.1:0", "bind_ipv6": None}

async def main():
    global endpoint
    endpoint = await Endpoint.bind(**LOOPBACK)

asyncio.run(main())
child = os.fork()
if child == 0:
    told = 0
    for use in (lambda: endpoint.id, lambda: endpoint.addr(), lambda: endpoint.accept()):
        try:
            use()
        except pyiroh.ForkedProcess as error:
            told += isinstance(error, RuntimeError)

    async def bind():
        await Endpoint.bind(**LOOPBACK)

    try:
        asyncio.run(bind())
    except pyiroh.ForkedProcess:
        told += 1
    print("told", told, flush=True)
    # The usual way out, with all destructors.
    sys.exit(7)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status), flush=True)

async def close():
    await endpoint.close()

asyncio.run(close())
"""


def test_child_is_refused_and_ends():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("told 4\nchild 7\n", "")
    assert done.returncode == 0


def test_a_process_that_forks_before_its_first_use_is_fine():
    program = """
import asyncio, os, sys
import pyiroh
child = os.fork()
async def use():
    async with await pyiroh.Endpoint.bind(bind_ipv4="127.0.0.1:0", bind_ipv6=None) as endpoint:
        return endpoint.id
asyncio.run(use())
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
