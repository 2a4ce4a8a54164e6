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
    from ._process import process

__version__ = "0.1.0"

__all__ = [
    "AsyncFunction",
    "Bound",
    "Cancelled",
    "Conflict",
    "CurrentJob",
    "Error",
    "Failed",
    "Failure",
    "Function",
    "Job",
    "Later",
    "MissingServiceWarning",
    "NoStore",
    "Unanswered",
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
    "process",
    "register",
    "remote",
    "using",
]

for _exported in (Cancelled, Conflict, Error, Failed, Failure, Later, MissingServiceWarning, NoStore, Unanswered):
    _exported.__module__ = __name__
del _exported


def __getattr__(name: str) -> Any:
    # Draining is rare, and its modules take time to load.
    if name == "process":
        from ._process import process

        globals()["process"] = process
        return process
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
