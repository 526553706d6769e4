"""kubeconform with the schemas of a control plane's OpenAPI document, including CRDs."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from harness.controlplane import ControlPlane
from harness.tools import tool

Json = dict[str, Any]

#: Types that the document describes as strings but that may also be numbers in manifests.
_NUMBERS = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ["integer", "string"],
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ["number", "string"],
}


def write_schemas(controlplane: ControlPlane, folder: Path) -> None:
    """Write a JSON schema for each kind that the control plane serves, without unknown fields."""
    definitions = controlplane.request("GET", "/openapi/v2")["definitions"]
    for name, types in _NUMBERS.items():
        definitions[name] = {"type": types}
    for name, definition in definitions.items():
        for each in definition.get("x-kubernetes-group-version-kind", ()):
            group, version, kind = (each[key] for key in ("group", "version", "kind"))
            schema = {"$ref": f"#/definitions/{name}", "definitions": _closed(_needed(definitions, name))}
            (folder / f"{kind}-{group or version}-{version}.json".lower()).write_text(json.dumps(schema))


def _needed(definitions: Json, name: str) -> Json:
    """Return a definition and everything that it refers to."""
    needed: Json = {}
    waiting = [name]
    while waiting:
        if (each := waiting.pop()) not in needed:
            needed[each] = definitions[each]
            waiting += re.findall(r'"#/definitions/([^"]+)"', json.dumps(needed[each]))
    return needed


def _closed(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Return a schema that doesn't allow unknown fields."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(each) for key, each in schema.items()}
    if isinstance(schema.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def kubeconform(schemas: Path, manifests: str) -> subprocess.CompletedProcess[str]:
    """Check manifests against the schemas of a folder."""
    location = f"{schemas}/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json"
    command: list[str | Path] = [tool("kubeconform"), "-strict", "-summary", f"-schema-location={location}", "-"]
    return subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
