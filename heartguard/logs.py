"""One JSON line per request and per event, on standard output."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def configure(service: str, level: str) -> None:
    """Send structlog and the standard library's logging to standard output as JSON lines."""

    def stamp(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": event.pop("level", _method).upper(),
            "service": service,
            **event,
        }

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.format_exc_info,
        stamp,
    ]
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[*shared, lambda _l, _m, event: _encode(event)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda _l, _m, event: _encode(event).decode(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
