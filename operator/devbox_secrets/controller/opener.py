"""Opens sealed values; nothing else in the operator's process opens any.

A value is cached only while there is room, since it can be opened again. Its fingerprint is always kept.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret, Reason
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import abridge, is_abridged, shared_text
from devbox_secrets.controller.rules.conditions import NotReady, unavailable
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.crypto.envelope import Keyring, key_id_of
from devbox_secrets.errors import Conflict, DevboxSecretsError

#: Bytes of cached values; the largest value has 131,072. A value that isn't cached costs a request.
_KEPT_BYTES = 32 * 1024 * 1024
#: Overhead per cached value.
_OVERHEAD_BYTES = 400


class Values:
    """Values by fingerprint: the most recently used ones, as far as there is room."""

    def __init__(self, most_bytes: int = _KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._values: OrderedDict[Fingerprint, SecretBytes] = OrderedDict()

    def get(self, fingerprint: Fingerprint) -> SecretBytes | None:
        """Return a value, or None if it was evicted."""
        value = self._values.get(fingerprint)
        if value is not None:
            self._values.move_to_end(fingerprint)
        return value

    def add(self, value: SecretBytes) -> Fingerprint:
        """Cache a value; return its fingerprint."""
        fingerprint = Fingerprint.of(value)
        if self.get(fingerprint) is None:
            self._values[fingerprint] = value
            self._bytes += fingerprint.size + _OVERHEAD_BYTES
        while self._bytes > self._most_bytes:
            oldest, _ = self._values.popitem(last=False)
            self._bytes -= oldest.size + _OVERHEAD_BYTES
        return fingerprint


@dataclass(frozen=True, slots=True)
class Opened:
    """The result of opening a sealed text."""

    name: str
    """The variable's name, to which the text is bound."""
    sealed: str
    """The text, abridged."""
    key_id: str | None
    """The id of the key that the value needs."""
    outcome: Fingerprint | NotReady
    """The value's fingerprint, or why it isn't available."""
    invalid_spec: str | None
    """What is wrong with the rest of the spec."""
    keys: frozenset[str] | None
    """If the value isn't available, the ids of the keys at that time; with other keys it may open. Otherwise None."""


class Opener:
    """Opens each sealed text once, since that is the most expensive step."""

    def __init__(
        self, keyring: Callable[[], Keyring], read_sealed: Callable[[str, str], Awaitable[str | None]]
    ) -> None:
        self.values = Values()
        self._keyring = keyring
        self._read_sealed = read_sealed
        self._opened: dict[str, Opened] = {}
        """By uid."""

    def opened(self, secret: AccountSecret) -> Opened | None:
        """Return the result for an AccountSecret's current sealed text, or None if it has yet to be opened."""
        opened = self._opened.get(secret.uid)
        if opened is None:
            return None
        current = secret.spec.name, abridge(secret.spec.sealed), secret.invalid_spec
        if (opened.name, opened.sealed, opened.invalid_spec) != current:
            return None
        if isinstance(opened.outcome, NotReady) and opened.keys != frozenset(self._keyring()):
            return None
        return opened

    def open_listed(self, secret: AccountSecret) -> bool:
        """Do the same as `open`, unless it needs a request."""
        if opened := self.opened(secret):
            return isinstance(opened.outcome, Fingerprint)
        return not is_abridged(secret.spec.sealed) and self._open(secret, secret.spec.sealed) is not None

    async def open(self, secret: AccountSecret) -> bool:
        """Open an AccountSecret's value, unless that has been done; return whether that was possible.

        Raises:
            APIError: its sealed text can't be read or has changed.
        """
        if opened := self.opened(secret):
            return isinstance(opened.outcome, Fingerprint)
        return self._open(secret, await self._sealed(secret)) is not None

    async def value(self, secret: AccountSecret) -> SecretBytes | None:
        """Return an AccountSecret's value, or None if it can't be opened.

        Raises:
            APIError: its sealed text can't be read or has changed.
        """
        opened = self.opened(secret)
        if opened and isinstance(opened.outcome, Fingerprint):
            value = self.values.get(opened.outcome)
            if value is not None:
                return value
        return self._open(secret, await self._sealed(secret))

    def forget(self, uid: str) -> None:
        """Forget the result for an AccountSecret."""
        self._opened.pop(uid, None)

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Forget the results for all AccountSecrets except these."""
        self._opened = {uid: opened for uid, opened in self._opened.items() if uid in uids}

    def _open(self, secret: AccountSecret, sealed: str) -> SecretBytes | None:
        keyring, key_id, value = self._keyring(), None, None
        outcome: Fingerprint | NotReady
        try:
            key_id = shared_text(key_id_of(sealed))
            if not secret.invalid_spec:
                value = keyring.open(sealed, account=secret.namespace, name=secret.spec.name)
                metrics.OPENS.inc()
        except DevboxSecretsError as error:
            outcome = unavailable(error)
        if secret.invalid_spec:
            outcome = NotReady(Reason.INVALID_SPEC, secret.invalid_spec)
        elif value is not None:
            outcome = self.values.add(value)
        keys = frozenset(keyring) if value is None else None
        self._opened[secret.uid] = Opened(secret.spec.name, abridge(sealed), key_id, outcome, secret.invalid_spec, keys)
        return value

    async def _sealed(self, secret: AccountSecret) -> str:
        if not is_abridged(secret.spec.sealed):
            return secret.spec.sealed
        sealed = await self._read_sealed(secret.namespace, secret.name)
        # Equal if it only looks as if it were abridged.
        if sealed is None or secret.spec.sealed not in {sealed, abridge(sealed)}:
            raise Conflict(f"AccountSecret {secret.namespace}/{secret.name}: changed or deleted meanwhile")
        return sealed
