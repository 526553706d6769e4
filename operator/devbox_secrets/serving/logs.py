"""Logging: diagnostics on standard error, records for machines on standard output."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

#: At DEBUG, these log bodies or headers.
_LIBRARIES = ("aiohttp", "asyncio", "kopf")

LogFormat = Literal["text", "json"]


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the time, level, logger and message, and the exception where there is one."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str, log_format: LogFormat = "text", libraries: Mapping[str, int] | None = None) -> None:
    """Log to standard error at a level, but libraries never below INFO.

    Args:
        level: the level's name.
        log_format: `text`, or `json` for one JSON object per line.
        libraries: other loggers, each with its own level.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JSONFormatter() if log_format == "json" else text)
    logging.basicConfig(handlers=[handler], level=level)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
    for name, own in (libraries or {}).items():
        logging.getLogger(name).setLevel(own)


def records(name: str) -> logging.Logger:
    """Return a logger that writes its messages unchanged to standard output, whatever the log level is."""
    logger = logging.getLogger(name)
    logger.handlers = [logging.StreamHandler(sys.stdout)]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger
