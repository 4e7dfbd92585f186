"""XGBoost models as saved by XGBoost: JSON (``.json``) and binary JSON (``.ubj``); XGBoost computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.errors import SourceError
from edgekit_converters.frontends.tabular import TabularModel, boosted_graph, boosted_signature
from edgekit_converters.frontends.trees.from_xgboost import read_xgboost


def load(path: Path) -> TabularModel:
    """Load a model.

    Raises:
        SourceError: damaged, or of a kind that is not supported.
    """
    import xgboost

    read_xgboost(path.read_bytes(), str(path))  # XGBoost trusts its files: ours is the first to look
    try:
        booster = xgboost.Booster(model_file=str(path))
    except (xgboost.core.XGBoostError, ValueError, OSError) as error:
        raise SourceError(
            f"XGBoost cannot load it: {' '.join(str(error).split())[:200]}",
            where=str(path),
            remedy="the file is damaged, or of a format that this XGBoost no longer reads; save it again",
            code="corrupt_source",
        ) from error
    return from_booster(booster, str(path))


def from_booster(booster: Any, where: str) -> TabularModel:
    """A `Booster` in memory as a source."""
    import xgboost

    boosted = read_xgboost(bytes(booster.save_raw("json")), where)
    if boosted.link == "softmax":
        booster.set_param({"objective": "multi:softprob"})  # else it gives labels, not probabilities
    found = boosted_signature(boosted, f"xgboost {xgboost.__version__}")
    name = found.outputs[0].name
    kinds = booster.feature_types

    def compute(rows: Any) -> dict[str, Any]:
        data = xgboost.DMatrix(rows, feature_types=kinds, enable_categorical=bool(kinds and "c" in kinds))
        return {name: booster.predict(data, validate_features=False)}

    tools = {"xgboost": xgboost.__version__}
    return TabularModel(found, lambda: boosted_graph(boosted, name), compute, tools)
