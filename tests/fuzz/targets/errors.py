"""Checks what holds for every documented error: it doesn't repeat the input."""

#: Text of this length isn't in both the input and an error by chance.
_REPEATED = 16


def check_error(error: Exception, *secrets: str) -> None:
    """Check that an error has no context, which may contain the input, and no part of these texts."""
    assert error.__suppress_context__ or error.__context__ is None
    message = str(error)
    for text in secrets:
        pieces = (text[at : at + _REPEATED] for at in range(len(text) - _REPEATED + 1))
        assert not any(piece in message for piece in pieces), "an error repeats the input"
