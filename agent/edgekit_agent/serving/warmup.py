"""First runs of a freshly loaded model, so that the first request is not the slow one."""

from __future__ import annotations

import numpy as np

from edgekit.errors import RefusedError
from edgekit.ports import Session
from edgekit_agent.errors import ModelError

RUNS = 2


def warm_up(session: Session, where: str) -> None:
    """Compute zeros a few times, batch of one. A model with free dimensions beyond the batch is not
    warmed up: nobody knows which lengths it takes.

    Raises:
        RefusedError: it fails even on zeros.
    """
    if any(-1 in tensor.shape[1:] for tensor in session.inputs):
        return
    zeros = {
        tensor.name: np.zeros([1 if size == -1 else size for size in tensor.shape], tensor.dtype)
        for tensor in session.inputs
    }
    try:
        for _ in range(RUNS):
            session.run(zeros)
    except ModelError as error:
        raise RefusedError(
            f"the model fails on an input of zeros: {error.message}", where=where, code="warmup_failed"
        ) from error


__all__ = ["RUNS", "warm_up"]
