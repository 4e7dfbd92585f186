"""TorchScript files (``torch.jit.save``): the program is in the file, the sizes of its inputs are not.

They come from the contract beside it (``model.toml``). Python code is never run: TorchScript has an
interpreter of its own. Imported in torch workers only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.contract import load_contract
from edgekit.errors import SourceError
from edgekit_converters.frontends.torch_common import batched, examples_of, port, versions
from edgekit_converters.values import Signature

OPSET = 18


class ScriptModel:
    """A TorchScript module; ports by the contract's names."""

    def __init__(self, module: Any, path: Path) -> None:
        import torch

        where, contract = str(path), path.with_name("model.toml")
        self._module = module
        self._examples = examples_of(None, contract, where)
        names = [item.name for item in load_contract(contract).inputs]
        try:
            with torch.no_grad():
                answers = self._flat(module(*self._examples))
        except RuntimeError as error:
            raise SourceError(
                f"it does not take inputs as {contract.name} says: {' '.join(str(error).split())[-300:]}",
                where=where,
                remedy="give every input, in the order of forward(), with its dtype and shape",
                code="wrong_shape",
            ) from error
        if not answers or not all(isinstance(item, torch.Tensor) for item in answers):
            raise SourceError("an output is no tensor", where=where, code="unsupported_type")
        labels = ["output"] if len(answers) == 1 else [f"output_{i}" for i in range(len(answers))]
        self.signature = Signature(
            inputs=tuple(port(n, item, where) for n, item in zip(names, self._examples, strict=True)),
            outputs=tuple(port(n, item, where) for n, item in zip(labels, answers, strict=True)),
            framework=f"torchscript, run by torch {versions()['torch']}",
        )

    @staticmethod
    def _flat(answer: Any) -> list[Any]:
        return list(answer) if isinstance(answer, tuple | list) else [answer]

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        import torch

        inputs = [item.name for item in self.signature.inputs]
        outputs = [item.name for item in self.signature.outputs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self._module,
                self._examples,
                path,
                dynamo=False,  # the newer exporter does not take TorchScript
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={name: {0: "N"} for name in (*inputs, *outputs)},
            )
        return versions()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`."""
        given = [inputs[item.name] for item in self.signature.inputs]
        columns = batched(lambda rows: self._flat(self._module(*rows)), given, None)
        return {item.name: column for item, column in zip(self.signature.outputs, columns, strict=True)}


def load(path: Path) -> ScriptModel:
    """Load a TorchScript file.

    Raises:
        SourceError: damaged, or the contract does not say its inputs.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jit: Any = torch.jit
            module = jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise SourceError(
            f"PyTorch cannot load it: {' '.join(str(error).split())[:200]}",
            where=str(path),
            remedy="the file is damaged; save the module again",
            code="corrupt_source",
        ) from error
    return ScriptModel(module, path)
