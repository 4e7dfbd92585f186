"""Runs a command that ends when its parent does: ``python -I -S leash.py PARENT COMMAND…``.

Run by path in an interpreter of its own, so it imports nothing of ours. It asks the kernel for SIGTERM at
the parent's death (Linux) and becomes the command; elsewhere it only becomes the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    os.execvp(command[0], command)
