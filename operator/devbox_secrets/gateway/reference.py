"""Generates docs/openapi.json: `python -m devbox_secrets.gateway.reference`, which `make generate` runs."""

import json
import sys

from devbox_secrets.gateway.routes import DOCUMENT

if __name__ == "__main__":
    sys.stdout.write(json.dumps(dict(DOCUMENT), indent=2, ensure_ascii=False) + "\n")
