"""AccountSecrets and values as the rules see them, for their tests."""

from dataclasses import replace

from pydantic import SecretBytes

from devbox_secrets.controller.rules.conditions import NotReady
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.controller.rules.plan import Entry


def v(text: str | int) -> Fingerprint:
    return Fingerprint.of(SecretBytes(text.encode() if isinstance(text, str) else b"x" * text))


def entry(variable: str, opened: Fingerprint | NotReady, day: int = 1, **fields: object) -> Entry:
    made = Entry(
        uid=f"uid-{variable}-{day}",
        account="home",
        name=f"{variable.lower()}-{day}",
        variable=variable,
        created=f"2026-01-{day:02}T00:00:00Z",
        generation=1,
        key_id="0123456789abcdef",
        opened=opened,
    )
    return replace(made, **fields)  # type: ignore[arg-type]
