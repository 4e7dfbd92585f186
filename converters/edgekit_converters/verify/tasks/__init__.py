"""Quality figures by task, each paired: source and variant on the same samples.

One file a task. A `Figure` turns outputs and labels into one row a sample (`rows`), and rows into the
figure (`value`); from that alone `judged` gets source, variant, drop, bounds and slices. Rows of rights
and wrongs are compared exactly, everything else by a seeded bootstrap over samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from edgekit.contract import OutputSpec
from edgekit_converters.verify.tasks.anomaly import reconstruction_auc
from edgekit_converters.verify.tasks.classification import classification_figures
from edgekit_converters.verify.tasks.detection import detection_figures
from edgekit_converters.verify.tasks.embedding import embedding_figures
from edgekit_converters.verify.tasks.paired import Figure, Judged, judged
from edgekit_converters.verify.tasks.regression import regression_figures
from edgekit_converters.verify.tasks.segmentation import segmentation_figures

Array = NDArray[Any]

FIGURES: Mapping[str, tuple[str, ...]] = {
    "classification": ("top1", "top5", "auc"),
    "detection": ("map", "map50"),
    "segmentation": ("miou", "pixel_accuracy"),
    "regression": ("rmse", "mae"),
    "embedding": ("recall1",),
    "anomaly": ("auc",),
}
"""Figures that a task has, the first being the one that a contract without metrics is judged by."""


def figures_of(
    spec: OutputSpec, outputs: Mapping[str, Array], inputs: Mapping[str, Array], labels: Array, where: str
) -> tuple[Figure, ...]:
    """The figures that `labels` allow for the output `spec`.

    Args:
        spec: the judged output; its task decides.
        outputs: the source's, by name.
        inputs: the samples, by name.
        labels: first axis n; what else they must be depends on the task.
        where: names the labels in errors.

    Raises:
        DataError: labels of another kind than the task needs.
    """
    name = spec.name
    if spec.task == "classification":
        return classification_figures(name, outputs[name], labels, spec.activation)
    if spec.task == "detection":
        return detection_figures(outputs, labels, where)
    if spec.task == "segmentation":
        return segmentation_figures(name, outputs[name], labels, where)
    if spec.task == "regression":
        return regression_figures(name, outputs[name], labels, where)
    if spec.task == "embedding":
        return embedding_figures(name, labels, where)
    if spec.task == "anomaly":
        return (reconstruction_auc(name, outputs[name], inputs, labels, where),)
    return ()


__all__ = ["FIGURES", "Figure", "Judged", "figures_of", "judged"]
