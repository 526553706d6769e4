"""Writes software bills of materials in SPDX with syft; equal input gives an equal document."""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from harness.run import run
from harness.tools import tool
from harness.tools import version as tool_version

_SETTINGS = {"SYFT_CHECK_FOR_APP_UPDATE": "false", "SYFT_PARALLELISM": "1"}


def write(source: str, target: Path, name: str, version: str, created: int) -> None:
    """Write the contents of a source, such as `dir:…` or `oci-archive:…`; `created` is seconds since 1970.

    syft uses the current time and a random number; here both are derived from the input.
    """
    names = (f"--source-name={name}", f"--source-version={version}")
    document = json.loads(run(tool("syft"), "scan", source, "--output=spdx-json", *names, env=os.environ | _SETTINGS))
    document["creationInfo"]["creators"][1:] = [f"Tool: syft-{tool_version('syft')}"]
    document["creationInfo"]["created"] = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    namespace = document.pop("documentNamespace").rpartition("/")[0]
    text = json.dumps(document, sort_keys=True)
    document["documentNamespace"] = f"{namespace}/{name}-{version}-{hashlib.sha256(text.encode()).hexdigest()}"
    target.write_text(f"{json.dumps(document, indent=1, sort_keys=True)}\n")
