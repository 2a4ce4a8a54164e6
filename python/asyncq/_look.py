"""Looks at jobs and services, waits for them, and pauses them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ._calls import listed, span_text
from ._errors import Error
from ._job import Job
from ._rpc import is_time_over, request

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from typing import Literal

    from ._job import State

R = TypeVar("R")


def fields_of(kind: Any, shown: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass from an object of asyncq. A newer asyncq may show more."""
    found: dict[str, Any] = {}
    for field in fields(kind):
        value = shown.get(field.name.rstrip("_"))
        # With postponed evaluation, the type of a field is text.
        is_time = str(field.type).startswith("datetime")
        found[field.name] = datetime.fromisoformat(value) if is_time and value is not None else value
    return found


@dataclass(frozen=True)
class Reason:
    """Why a call does not run, or why it ended as it did."""

    code: str
    """A word that stays the same: docs/explain.md lists all."""
    message: str
    next: str | None
    """The command to run next."""


@dataclass(frozen=True)
class Explanation:
    """What `asyncq explain` says about a job."""

    id: int
    service: str
    function: str
    state: State
    reasons: list[Reason]
    """The one that stops the call now comes first."""
    stderr: list[str]
    """The last lines that a failed call printed to stderr."""


@dataclass(frozen=True)
class Log:
    """What is kept of the output of an attempt."""

    attempt: int | None
    """None if no attempt has begun."""
    complete: bool
    """Whether this is the whole output. If not, the attempt may still print."""
    parts: list[tuple[Literal["out", "err"], str]]
    """Texts with their streams, in the order in which they were read."""
    dropped: int
    """How many bytes in between were not kept."""

    @property
    def out(self) -> str:
        """What it printed to stdout."""
        return "".join(text for stream, text in self.parts if stream == "out")

    @property
    def err(self) -> str:
        """What it printed to stderr."""
        return "".join(text for stream, text in self.parts if stream == "err")


@dataclass(frozen=True)
class ServiceOverview:
    """A service and its calls. `at_least` names the counts that stopped early."""

    name: str
    concurrency: int
    paused: bool
    paused_why: str | None
    running: int
    queued: int
    blocked: int
    delayed: int
    held: int
    errors: int
    at_least: list[str]
    oldest_due_at: datetime | None
    next_due_at: datetime | None
    next_tick_at: datetime | None
    next_schedule: str | None


@dataclass(frozen=True)
class ProcessorOverview:
    """A run of `asyncq process`."""

    id: int
    pid: int
    host: str
    started_at: datetime
    is_alive: bool


@dataclass(frozen=True)
class Overview:
    """What `asyncq status` shows."""

    at: datetime
    paused: bool
    """Whether the whole store is paused."""
    paused_why: str | None
    services: list[ServiceOverview]
    processors: list[ProcessorOverview]
    schedules: int
    schedules_paused: int
    bytes: int


def explain(id: int) -> Explanation:
    """Why a job does not run, or why it ended as it did."""
    shown = request("explain", f'{{"job":{id}}}', repeat=True)
    found = fields_of(Explanation, shown)
    return Explanation(**{**found, "reasons": [Reason(**fields_of(Reason, reason)) for reason in shown["reasons"]]})


def log(id: int, attempt: int | None) -> Log:
    """What is kept of the output of a job."""
    params = {"job": id} if attempt is None else {"job": id, "attempt": attempt}
    shown = request("log", json.dumps(params), repeat=True)
    parts = [(part["stream"], part["text"]) for part in shown["parts"] if "text" in part]
    return Log(shown["attempt"], shown["complete"], parts, sum(part.get("dropped", 0) for part in shown["parts"]))


def status(*services: str, except_: Iterable[str] = (), exact: bool = False) -> Overview:
    """An overview of these services, by names or patterns, or of all. Counts stop at 100000, unless you want them `exact`."""
    shown = request("status", json.dumps({"services": services, "except": listed("except_", except_), "exact": exact}), repeat=True)
    found = fields_of(Overview, shown)
    found["services"] = [ServiceOverview(**fields_of(ServiceOverview, it)) for it in shown["services"]]
    found["processors"] = [ProcessorOverview(**fields_of(ProcessorOverview, it)) for it in shown["processors"]]
    return Overview(**found)


def check(
    *services: str,
    except_: Iterable[str] = (),
    max_age: float | timedelta | str | None = None,
    max_errors: int | None = None,
) -> list[str]:
    """The problems of these services, by names or patterns, or of all: a sentence for each, as `asyncq status --check` prints
    them. `max_age` is how long a call may wait in the queue (10 minutes), `max_errors` how many jobs may be in `error`."""
    params: dict[str, Any] = {"services": services, "except": listed("except_", except_)}
    if max_age is not None:
        params["max_age"] = span_text("max_age", max_age)
    if max_errors is not None:
        params["max_errors"] = max_errors
    problems: list[str] = request("check", json.dumps(params), repeat=True)["problems"]
    return problems


def wait_any(jobs: Iterable[Job[R]], timeout: float | None = None) -> Job[R]:
    """Waits until one of these jobs has ended, and returns it. If several have, returns the first in your order.

    Raises `TimeoutError` after `timeout` seconds.
    """
    all_jobs = {job.id: job for job in jobs}
    if not all_jobs:
        raise ValueError("there are no jobs to wait for")
    [shown] = _wait({"jobs": [*all_jobs], "any": True}, timeout)["jobs"]
    job = all_jobs[shown["id"]]
    job._shown = shown
    return job


def wait_service(name: str, timeout: float | None = None) -> None:
    """Waits until no call of a service is queued, blocked or running. Held calls, and those that are due later, do not count.

    Raises `TimeoutError` after `timeout` seconds.
    """
    _wait({"service": name}, timeout)


def pause(why: str | None = None, *, wait: bool = False, timeout: float | None = None) -> None:
    """Runs no calls of the whole store until `resume()`, but accepts new ones. With `wait`, returns once no call runs.

    Raises `TimeoutError` after `timeout` seconds; the pause stays.
    """
    params: dict[str, Any] = {} if why is None else {"why": why}
    if wait:
        params["wait"] = True
    elif timeout is not None:
        raise TypeError("`timeout` needs wait=True")
    _wait(params, timeout, "pause")


def resume() -> None:
    """Ends the pause of the whole store. A service that is paused on its own stays so."""
    request("resume", "{}", repeat=True)


def pause_services(*services: str, why: str | None = None) -> int:
    """Runs no calls of these services (names or patterns). Returns how many services there are."""
    params: dict[str, Any] = {"services": services}
    if why is not None:
        params["why"] = why
    return int(request("service.pause", json.dumps(params), repeat=True)["services"])


def resume_services(*services: str) -> int:
    """Runs the calls of these services (names or patterns) again. Returns how many services there are."""
    return int(request("service.resume", json.dumps({"services": services}), repeat=True)["services"])


def _wait(params: dict[str, Any], timeout: float | None, method: str = "wait") -> Any:
    if timeout is not None:
        params = {**params, "timeout": timeout}
    try:
        return request(method, json.dumps(params), repeat=True)
    except Error as error:
        if timeout is not None and is_time_over(error):
            raise TimeoutError(str(error)) from None
        raise
