"""What a package is made of, as CycloneDX 1.6 JSON (https://cyclonedx.org/docs/1.6/json/).

The model is a ``machine-learning-model`` with its contract as model card, every artifact a ``file`` with its
hash, every tool that took part a ``library`` of PyPI. Times and random numbers are left out: the same package
gives the same bytes.
"""

from __future__ import annotations

import uuid
from typing import Any

from edgekit.package import Manifest

_SPACE = uuid.UUID("3d1f1f7e-5c1b-5a0c-8a56-2f8f3b3f7f10")
_PYPI = {"litert": "ai-edge-litert", "edgekit": "edgekit-converters"}


def bill_of_materials(manifest: Manifest) -> dict[str, Any]:
    """The whole document."""
    model = f"model:{manifest.ref}"
    artifacts = [_artifact(variant_file) for item in manifest.variants for variant_file in item.files]
    tools = [_tool(name, version) for name, version in sorted(manifest.tools.items())]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, manifest.digest)}",
        "version": 1,
        "metadata": {
            "component": _model(manifest, model),
            "tools": {"components": [_tool("edgekit", manifest.tools.get("edgekit", "0"))]},
            "properties": [
                {"name": "edgekit:package", "value": manifest.digest},
                *(
                    {"name": f"edgekit:profile:{name}", "value": digest}
                    for name, digest in sorted(manifest.profiles.items())
                ),
            ],
        },
        "components": [*artifacts, *tools],
        "dependencies": [
            {"ref": model, "dependsOn": []},
            *({"ref": item["bom-ref"], "dependsOn": [model]} for item in artifacts),
        ],
    }


def _model(manifest: Manifest, ref: str) -> dict[str, Any]:
    identity = manifest.contract.get("model", {})
    outputs = manifest.contract.get("outputs", [])
    ports = {key: manifest.contract.get(key, []) for key in ("inputs", "outputs")}
    card: dict[str, Any] = {
        "modelParameters": {
            "task": next((item["task"] for item in outputs if item.get("task")), "unspecified"),
            "inputs": [{"format": f"{i['dtype']} {i.get('shape', [])}"} for i in ports["inputs"]],
            "outputs": [{"format": f"{i['dtype']} {i.get('shape', [])}"} for i in ports["outputs"]],
        }
    }
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": manifest.name,
        "version": manifest.version,
        "hashes": [{"alg": "SHA-256", "content": manifest.source["sha256"]}],
        "modelCard": card,
    }
    if identity.get("licence"):
        found["licenses"] = [{"license": {"name": str(identity["licence"])}}]
    if identity.get("description"):
        found["description"] = str(identity["description"])
    if identity.get("owner"):
        found["supplier"] = {"name": str(identity["owner"])}
    return found


def _artifact(item: Any) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file:{item.path}",
        "name": item.path,
        "hashes": [{"alg": "SHA-256", "content": item.sha256}],
        "properties": [{"name": "edgekit:bytes", "value": str(item.bytes)}],
    }


def _tool(name: str, version: str) -> dict[str, Any]:
    package = _PYPI.get(name, name)
    purl = f"pkg:pypi/{package}@{version}"
    return {"type": "library", "bom-ref": purl, "name": package, "version": version, "purl": purl}
