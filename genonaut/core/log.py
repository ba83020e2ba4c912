"""Set up structured logs, the same for every process."""

import logging
import sys
from typing import Any

import structlog


def configure_logging(level: str, *, as_json: bool = False) -> None:
    """Send every log line, ours and the libraries', to standard error in one form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        # The default formatter shows local variables: slow, and there are secrets among them.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    rendered = [*([structlog.processors.format_exc_info] if as_json else []), renderer]
    # Our own lines do not take the way through the standard library: there is one per request.
    structlog.configure(
        processors=[*shared, *rendered],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *rendered,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in (
        "alembic",
        "httpx",
        "httpcore",
        "websockets",
        "PIL",
        "amqp",
        "redbeat",
        "urllib3",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)
