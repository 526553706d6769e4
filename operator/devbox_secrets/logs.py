"""How our processes log: lines on standard error, and records on standard output. Imports nothing of ours."""

import logging
import sys
from collections.abc import Iterable


def log(level: str, chatty: Iterable[str]) -> None:
    """Log to standard error at a level, and keep these libraries at INFO: at DEBUG they log bodies or headers."""
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in chatty:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))


def records(name: str) -> logging.Logger:
    """Give a logger whose messages are lines of standard output as they are, at every level of the log itself."""
    logger = logging.getLogger(name)
    logger.handlers = [logging.StreamHandler(sys.stdout)]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger
