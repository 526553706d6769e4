"""What commands print, without what differs between two runs."""

import re

#: Patterns of what differs, and the word that replaces each.
VARYING = {
    r"\b[0-9a-f]{16}\b": "KEY",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)": "TIME",
    r"(?<=\s)\d+[smhd]\b": "AGE",
    r"held by \S+": "held by HOLDER",
    r"(?<= in )/\S+/(kube)?config\b": "KUBECONFIG",
    r"v?\d+\.\d+\.\d+": "VERSION",
    r" {2,}": "  ",
}


def normalize(text: str) -> str:
    """Return a text with placeholders for what differs."""
    for pattern, word in VARYING.items():
        text = re.sub(pattern, word, text)
    return "\n".join(line.rstrip() for line in text.splitlines())
