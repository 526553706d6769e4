"""Opens sealed values and remembers them; nothing else in the operator's process opens any."""

from collections.abc import Callable, Collection

from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret, Reason
from devbox_secrets.controller import metrics
from devbox_secrets.controller.rules.conditions import NotReady, unavailable
from devbox_secrets.crypto.envelope import Keyring, key_id_of
from devbox_secrets.errors import DevboxSecretsError


class Opener:
    """Opens each sealed text once, since that is the dearest step of all."""

    def __init__(self, keyring: Callable[[], Keyring]) -> None:
        self._keyring = keyring
        # By uid: the sealed text and what it opened to.
        self._opened: dict[str, tuple[str, SecretBytes]] = {}

    def open(self, secret: AccountSecret) -> tuple[str | None, SecretBytes | NotReady]:
        """Give the id of the key that an AccountSecret's value needs, and the value, or why it can't be had."""
        sealed, key_id = secret.spec.sealed, None
        invalid = NotReady(Reason.INVALID_SPEC, secret.invalid_spec) if secret.invalid_spec else None
        try:
            key_id = key_id_of(sealed)
            if invalid:
                return key_id, invalid
            value = self.opened(secret)
            if value is None:
                value = self._keyring().open(sealed, account=secret.namespace, name=secret.spec.name)
                self._opened[secret.uid] = sealed, value
                metrics.OPENS.inc()
        except DevboxSecretsError as error:
            return key_id, invalid or unavailable(error)
        return key_id, value

    def opened(self, secret: AccountSecret) -> SecretBytes | None:
        """Give an AccountSecret's value if it was opened already, as it is sealed now."""
        sealed, value = self._opened.get(secret.uid, (None, None))
        return value if sealed == secret.spec.sealed else None

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Drop the values of all AccountSecrets but these."""
        self._opened = {uid: opened for uid, opened in self._opened.items() if uid in uids}
