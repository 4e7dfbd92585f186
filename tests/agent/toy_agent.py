"""``python -m tests.agent.toy_agent HOME``: the agent as it runs, on the toy runtime."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from edgekit_agent.config import Home, load_config, load_identity
from edgekit_agent.lean import without_tls

without_tls()


def _main() -> int:
    from edgekit_agent.supervisor import Seams, serve
    from tests.simulators.toy_model import DETECTED, ToyRuntime

    home = Home(path=Path(sys.argv[1]))
    seams = Seams(detected=DETECTED, runtimes={"litert": ToyRuntime()}, built=0.0)
    return serve(home, load_config(home.config), load_identity(home), seams=seams)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    sys.exit(_main())
