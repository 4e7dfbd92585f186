"""When computing never returns: a thread cannot be ended from outside, a process can.

An inference that hangs on a worker thread is noticed by its age (`ModelHost.longest`): a model on trial is
reverted at once, and as the threads it holds never come back the agent then starts itself anew. One
that hangs with the interpreter's lock in hand stops every thread, the watchdog's too: `beating` has the
C library end the process, whoever runs the agent starts it again (systemd: ``Restart=always``), and boot
recovery puts the old model back.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import io
import logging
import os
import sys
from collections.abc import AsyncIterator

_LOG = logging.getLogger("edgekit.agent")


@contextlib.asynccontextmanager
async def beating(seconds: float) -> AsyncIterator[None]:
    """Inside, the process ends with code 1 once its event loop has stood still for `seconds`."""
    task = asyncio.create_task(_beat(seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        faulthandler.cancel_dump_traceback_later()


async def _beat(seconds: float) -> None:
    while True:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_descriptor())
        await asyncio.sleep(seconds / 6)


def _descriptor() -> int:
    """Where the traceback goes; 2 where standard error is no file."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, io.UnsupportedOperation, ValueError):
        return 2


def begin_anew() -> None:
    """Replace this process by a fresh one of the same command; returns only if that is impossible."""
    logging.shutdown()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError as error:
        _LOG.error("the agent cannot start itself anew: %s", error)
        leave(1)


def leave(code: int) -> None:
    """End the process without waiting for threads that never return."""
    logging.shutdown()
    os._exit(code)


__all__ = ["beating", "begin_anew", "leave"]
