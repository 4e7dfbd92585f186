"""What a package is made of, as CycloneDX 1.6 JSON (https://cyclonedx.org/docs/1.6/json/).

The model is a ``machine-learning-model`` with its contract as model card, every artifact a ``file`` with its
hash, every tool that took part a ``library`` of PyPI with the licence its metadata name, and what ran a
variant and is none of them an ``application``. Times and random numbers are left out: the same package and
tools give the same bytes.
"""

from __future__ import annotations

import uuid
from typing import Any

from edgekit.package import Manifest
from edgekit_converters.tools import installed, licence_of

_SPACE = uuid.UUID("3d1f1f7e-5c1b-5a0c-8a56-2f8f3b3f7f10")
_NPM = {"ort-web": "onnxruntime-web"}
_SPDX = (
    *("0BSD", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause"),
    *("BSD-3-Clause", "BSL-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "EPL-2.0", "GPL-2.0-only"),
    *("GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "ISC", "LGPL-2.1-only", "LGPL-3.0-only"),
    *("LGPL-3.0-or-later", "MIT", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib"),
)
"""Identifiers of SPDX that may stand as such; any other licence is given by its name."""


def bill_of_materials(manifest: Manifest) -> dict[str, Any]:
    """The whole document."""
    model = f"model:{manifest.ref}"
    artifacts = [_artifact(variant_file) for item in manifest.variants for variant_file in item.files]
    tools = [_tool(name, version) for name, version in sorted(manifest.tools.items())]
    runtimes = [_runtime(name, version) for name, version in _others(manifest)]
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
        "components": [*artifacts, *tools, *runtimes],
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
        found["licenses"] = _licences(str(identity["licence"]))
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
    package = installed().get(name, name)
    purl = f"pkg:pypi/{package}@{version}"
    found = {"type": "library", "bom-ref": purl, "name": package, "version": version, "purl": purl}
    licence = licence_of(package)
    return {**found, "licenses": _licences(licence)} if licence else found


def _others(manifest: Manifest) -> list[tuple[str, str]]:
    """Runtimes that ran a variant and are none of the tools."""
    checks = (item.verification for item in manifest.variants)
    ran = {(check.runtime, check.runtime_version or "") for check in checks if check.runtime}
    return sorted((name, version) for name, version in ran if name not in manifest.tools)


def _runtime(name: str, version: str) -> dict[str, Any]:
    found = {"type": "application", "bom-ref": f"runtime:{name}@{version}", "name": name, "version": version}
    return {**found, "purl": f"pkg:npm/{_NPM[name]}@{version}"} if name in _NPM else found


def _licences(text: str) -> list[dict[str, Any]]:
    """A licence as CycloneDX wants it: by SPDX identifier, as an SPDX expression, or by name."""
    if text in _SPDX:
        return [{"license": {"id": text}}]
    words = text.replace("(", " ").replace(")", " ").split()
    joined = {"AND", "OR", "WITH"} & set(words)
    return [{"expression": text}] if joined else [{"license": {"name": text}}]
