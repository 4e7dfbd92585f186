"""``python -m benchmarks.serving_process FOLDER``: an inference server to measure; prints its port."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


async def _main(folder: Path) -> None:
    from edgekit_agent.clock import SystemClock
    from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
    from edgekit_agent.serving.host import ModelHost
    from edgekit_agent.serving.http import InferenceServer
    from tests.agent.models import installed

    host = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=SystemClock())
    host.switch("animals", host.prepare(installed(folder)))
    server = InferenceServer(host)
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
