"""A secret's id: `sec_` and, in base32, the creation time, the object's uid and the object's name.

In this order, ids sort by creation time, a page can start after an id whose secret was deleted, and an object that is
recreated with the same name gets another id.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from devbox_secrets.api.validation import OBJECT_NAME_PATTERN

_PREFIX = "sec_"
_TIME_BYTES = 6
_UID_BYTES = 16
_NAME = re.compile(OBJECT_NAME_PATTERN.encode())
#: An id as clients see it; they must not interpret it.
ID_PATTERN = f"^{_PREFIX}[0-9a-v]+$"
ID_MAX_LENGTH = len(_PREFIX) + -(-(_TIME_BYTES + _UID_BYTES + 253) * 8 // 5)


@dataclass(frozen=True)
class SecretId:
    """Which AccountSecret."""

    created_ms: int
    uid: UUID
    name: str

    @property
    def order(self) -> tuple[int, int, str]:
        """Sort key: the creation time first."""
        return self.created_ms, self.uid.int, self.name

    @cached_property
    def text(self) -> str:
        """The id as text."""
        raw = self.created_ms.to_bytes(_TIME_BYTES) + self.uid.bytes + self.name.encode()
        return _PREFIX + base64.b32hexencode(raw).decode().rstrip("=").lower()

    @classmethod
    def parse(cls, text: str) -> "SecretId | None":
        """Parse an id; None if it can't be one of ours."""
        if len(text) > ID_MAX_LENGTH:
            return None
        digits = text.removeprefix(_PREFIX)
        try:
            raw = base64.b32hexdecode(digits.upper() + "=" * (-len(digits) % 8))
        except (binascii.Error, ValueError):
            return None
        created, uid, name = raw[:_TIME_BYTES], raw[_TIME_BYTES:][:_UID_BYTES], raw[_TIME_BYTES + _UID_BYTES :]
        if not _NAME.fullmatch(name):
            return None
        found = cls(int.from_bytes(created), UUID(bytes=uid), name.decode())
        return found if found.text == text else None
