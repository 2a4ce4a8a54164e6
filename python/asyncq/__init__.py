"""Call it now, run it later: functions that are queued in a store of asyncq, and run by `asyncq process`.

    import asyncq

    @asyncq.function(service="events")
    def heavy_computing(a, b):
        print("Computing", a, "+", b, "=", a + b)

    heavy_computing(2, 7)  # queued

docs/python.md describes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._config import configure
from ._context import CurrentJob, current_job, get_principal, immediate, is_async, login, logout, using
from ._errors import Cancelled, Conflict, Error, Failed, Failure, Later, MissingServiceWarning, NoStore, Unanswered
from ._function import AsyncFunction, Bound, Function, function, remote
from ._job import Job, job
from ._registration import define_service, register

if TYPE_CHECKING:
    from ._look import (
        Explanation,
        Log,
        Overview,
        ProcessorOverview,
        Reason,
        ServiceOverview,
        check,
        pause,
        pause_services,
        resume,
        resume_services,
        status,
        wait_any,
        wait_service,
    )
    from ._process import process
    from ._schedule import Schedule, ScheduleInfo, next_ticks, schedule, schedules

__version__ = "0.1.0"

_LATER = {
    "_look": (
        "Explanation", "Log", "Overview", "ProcessorOverview", "Reason", "ServiceOverview", "check", "pause",
        "pause_services", "resume", "resume_services", "status", "wait_any", "wait_service",
    ),
    "_process": ("process",),
    "_schedule": ("Schedule", "ScheduleInfo", "next_ticks", "schedule", "schedules"),
}  # fmt: skip
"""What is imported when it is first used: it is rare, and its modules take time to load."""

__all__ = [
    "AsyncFunction",
    "Bound",
    "Cancelled",
    "Conflict",
    "CurrentJob",
    "Error",
    "Explanation",
    "Failed",
    "Failure",
    "Function",
    "Job",
    "Later",
    "Log",
    "MissingServiceWarning",
    "NoStore",
    "Overview",
    "ProcessorOverview",
    "Reason",
    "Schedule",
    "ScheduleInfo",
    "ServiceOverview",
    "Unanswered",
    "check",
    "configure",
    "current_job",
    "define_service",
    "function",
    "get_principal",
    "immediate",
    "is_async",
    "job",
    "login",
    "logout",
    "next_ticks",
    "pause",
    "pause_services",
    "process",
    "register",
    "remote",
    "resume",
    "resume_services",
    "schedule",
    "schedules",
    "status",
    "using",
    "wait_any",
    "wait_service",
]

for _exported in (Cancelled, Conflict, Error, Failed, Failure, Later, MissingServiceWarning, NoStore, Unanswered):
    _exported.__module__ = __name__
del _exported


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            from importlib import import_module

            found = getattr(import_module(f".{module}", __name__), name)
            if isinstance(found, type):
                found.__module__ = __name__
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
