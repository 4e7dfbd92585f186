"""LightGBM models as saved by LightGBM (text, usually ``.txt``); LightGBM computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgekit.errors import SourceError
from edgekit_converters.frontends.tabular import TabularModel, boosted_graph, boosted_signature
from edgekit_converters.frontends.trees.from_lightgbm import read_lightgbm


def load(path: Path) -> TabularModel:
    """Load a model.

    Raises:
        SourceError: damaged, or of a kind that is not supported.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError("not a LightGBM text model", where=str(path), code="corrupt_source") from error
    # Before LightGBM sees it: its own reader ends the process on some damaged files, for one when the
    # trees' sizes are wrong, which it can do without.
    boosted = read_lightgbm(text, str(path))
    text = re.sub(r"(?m)^tree_sizes=.*\n", "", text)
    import lightgbm

    try:
        booster = lightgbm.Booster(model_str=text, params={"num_threads": 1, "verbose": -1})
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise SourceError(
            f"LightGBM cannot load it: {' '.join(str(error).split())[:200]}",
            where=str(path),
            remedy="the file is damaged; save the model again",
            code="corrupt_source",
        ) from error
    found = boosted_signature(boosted, f"lightgbm {lightgbm.__version__}")
    name = found.outputs[0].name

    def compute(rows: Any) -> dict[str, Any]:
        return {name: booster.predict(rows, num_threads=1, predict_disable_shape_check=False)}

    tools = {"lightgbm": lightgbm.__version__}
    return TabularModel(found, lambda: boosted_graph(boosted, name), compute, tools)
