"""Stands between edgekit and its browser: ends the browser and removes its folder when edgekit is gone.

Run as ``python keeper.py READ WRITE FOLDER PROGRAM FLAGS…``, in a session of its own. Standard input is a
pipe that edgekit holds open; its end says that edgekit ended, even where that was killed. READ and WRITE
become the file descriptors 3 and 4, on which Chromium's ``--remote-debugging-pipe`` listens and answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys

_TICK = 0.5
_GRACE = 2.0


def main() -> None:
    """Start the program, wait for its end or for edgekit's."""
    read, write, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read, write)]  # clear of 3 and 4
    os.dup2(high[0], 3)
    os.dup2(high[1], 4)
    child = subprocess.Popen(sys.argv[4:], pass_fds=(3, 4), stdin=subprocess.DEVNULL)
    for fd in {read, write, 3, 4, *high}:
        os.close(fd)
    while child.poll() is None:
        if select.select([0], [], [], _TICK)[0] and not os.read(0, 1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE)
            break
    child.kill()
    child.wait()
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
