"""Structured logs on standard error: for people in a terminal, JSON for programs."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def route_logs() -> None:
    """Hand the server's events, as lines of text, to the standard library's logging, whose configuration is the host process's.

    How the tables of a new file are made, step by step, is no news there.
    """
    _configure(
        structlog.contextvars.merge_contextvars,
        structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback),
    )
    migrations = logging.getLogger("alembic")
    if migrations.level == logging.NOTSET:
        migrations.setLevel(logging.WARNING)


def _configure(*processors: Processor) -> None:
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *processors],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def show_logs(*, level: str, style: Literal["auto", "console", "json"]) -> None:
    """Show the server's logs, and warnings of its libraries, on standard error, one line an event; coloured on a terminal, without NO_COLOR."""
    _configure(*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: list[Processor] = (
        [_for_people(colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"))]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[remove_meta, *renderer], foreign_pre_chain=_SHARED)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("asktell").setLevel(level.upper())


def _for_people(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    # Tracebacks of rich's have colours whatever the renderer does.
    return (
        structlog.dev.ConsoleRenderer(colors=True)
        if colors
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
