"""``python -m tests.agent.toy_agent HOME``: the agent as it runs, on the toy runtime."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from edgekit_agent.config import Home, load_config, load_identity
from edgekit_agent.lean import without_tls

without_tls()


async def _main() -> None:
    from edgekit_agent.supervisor import Seams, Supervisor
    from tests.simulators.toy_model import DETECTED, ToyRuntime

    home = Home(path=Path(sys.argv[1]))
    seams = Seams(detected=DETECTED, runtimes={"litert": ToyRuntime()}, built=0.0)
    supervisor = Supervisor(home, load_config(home.config), load_identity(home), seams)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    await supervisor.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(_main())
