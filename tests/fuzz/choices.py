"""Derives choices from the bytes of a fuzzer, so that an input always results in the same choices."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Choices derived from bytes; after the last byte, each choice is the first option."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, or all that are left."""
        taken = self._data[self._position : self._position + size]
        self._position += len(taken)
        return taken

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self.take(len(self._data))

    def below(self, bound: int) -> int:
        """Choose a number that is at least 0 and less than `bound`, which is at most 65,536."""
        return int.from_bytes(self.take(1 if bound <= 1 << 8 else 2)) % bound

    def of(self, options: Sequence[T]) -> T:
        """Choose one of some options."""
        return options[self.below(len(options))]

    def chance(self, one_in: int) -> bool:
        """Return True with a probability of 1 in `one_in`; False after the last byte."""
        return self.below(one_in) == one_in - 1

    def text(self, longest: int = 40) -> str:
        """Choose any Unicode text of at most `longest` bytes."""
        return self.take(self.below(longest + 1)).decode(errors="replace")
