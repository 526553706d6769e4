"""Logging: diagnostics on standard error, records for machines on standard output."""

import logging
import sys
from collections.abc import Mapping

#: At DEBUG these log bodies or headers.
_LIBRARIES = ("aiohttp", "asyncio", "kopf")


def configure(level: str, libraries: Mapping[str, int] | None = None) -> None:
    """Log to standard error at a level, and libraries at INFO at the most.

    Args:
        level: the level's name.
        libraries: further loggers, each with its own level.
    """
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
    for name, own in (libraries or {}).items():
        logging.getLogger(name).setLevel(own)


def records(name: str) -> logging.Logger:
    """Give a logger whose messages are lines of standard output as they are, at every level of the log itself."""
    logger = logging.getLogger(name)
    logger.handlers = [logging.StreamHandler(sys.stdout)]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger
