"""Schedules: calls that are made again and again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from . import _context
from ._calls import UNSET, listed, moment_text, span_text
from ._config import chosen
from ._function import Bound, Decorated, Enqueueable
from ._job import Job
from ._json import encode_arguments
from ._look import fields_of
from ._registration import ensure
from ._rpc import request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta
    from typing import TypeAlias

    Span: TypeAlias = float | timedelta | str
    When: TypeAlias = datetime | str
    Missed: TypeAlias = Literal["once", "skip", "all"]
    Overlap: TypeAlias = Literal["skip", "queue", "allow"]


@dataclass(frozen=True)
class ScheduleInfo:
    """What the store knows of a schedule, as `asyncq schedule show --json` prints it. Spans are in seconds."""

    name: str
    service: str
    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    principal: str | None
    site: str | None
    priority: int
    lane: str | None
    expires: float | None
    meta: dict[str, Any] | None
    cron: str | None
    zone: str | None
    every: float | None
    missed: Missed
    within: float
    overlap: Overlap
    from_: datetime | None
    until: datetime | None
    state: Literal["active", "paused", "ended"]
    next_tick: datetime | None
    last_tick: datetime | None
    last_job: int | None
    fired: int
    skipped: int
    last_skip: dict[str, str] | None
    """The `tick` that made no job last, and `why`."""
    description: str | None
    created_at: datetime


class Schedule:
    """The schedule with this name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a schedule is text, not {name!r}")
        self.name = name

    def __repr__(self) -> str:
        return f"<asyncq.Schedule {self.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def info(self) -> ScheduleInfo:
        """The current state of this schedule in the store. Raises `Error` if the schedule does not exist."""
        return _info(_ask("show", {"schedule": self.name}, repeat=True))

    def set(
        self,
        function: Enqueueable[Any, Any] | Bound[Any, Any] | None = None,
        *,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        cron: str | None = None,
        tz: str | None = None,
        every: Span | None = None,
        missed: Missed | None = None,
        within: Span | None = None,
        overlap: Overlap | None = None,
        from_: When | None = UNSET,
        until: When | None = UNSET,
        principal: str | None = UNSET,
        priority: int | None = None,
        lane: str | None = UNSET,
        expires: Span | None = UNSET,
        meta: Mapping[str, object] | None = UNSET,
        description: str | None = UNSET,
    ) -> ScheduleInfo:
        """Changes the schedule. What you leave out stays, and None takes a value away. A new call has its function and all
        its arguments."""
        params: dict[str, Any] = {"schedule": self.name}
        if function is not None:
            params |= _call(function, args, kwargs, is_new=False)
        elif args or kwargs:
            raise TypeError("arguments change only with the whole call: give its function, too")
        params |= _rule(cron, tz, every) | _ticks(missed, within, overlap, from_, until)
        given = {"principal": principal, "lane": lane, "expires": expires, "meta": meta, "description": description}
        params |= {name: value for name, value in given.items() if value is not UNSET}
        if params.get("expires") is not None:
            params["expires"] = span_text("expires", params["expires"])
        if priority is not None:
            params["priority"] = priority
        return _info(_ask("set", params))

    def pause(self) -> None:
        """Makes no calls until `resume()`."""
        _ask("pause", {"schedules": [self.name]}, repeat=True)

    def resume(self) -> None:
        """Goes on with the next tick from now."""
        _ask("resume", {"schedules": [self.name]}, repeat=True)

    def remove(self) -> None:
        """Removes it. Its jobs stay."""
        _ask("remove", {"schedule": self.name})

    def run(self) -> Job[Any]:
        """Makes one call now."""
        [number] = _ask("run", {"schedule": self.name})["jobs"]
        return Job(number)

    def make_up(self, from_: When, until: When | None = None) -> list[Job[Any]]:
        """Makes the jobs of all ticks at `from_` or later, and before `until` or now, that have none."""
        params = {"schedule": self.name, "from": moment_text("from_", from_)}
        if until is not None:
            params["until"] = moment_text("until", until)
        return [Job(number) for number in _ask("run", params)["jobs"]]

    def next(self, count: int = 5, *, from_: When | None = None) -> list[datetime]:
        """Its next ticks, from now or from another time on."""
        return _next({"schedule": self.name}, count, from_)


def schedule(
    name: str,
    function: Enqueueable[Any, Any] | Bound[Any, Any],
    *,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    cron: str | None = None,
    tz: str | None = None,
    every: Span | None = None,
    missed: Missed | None = None,
    within: Span | None = None,
    overlap: Overlap | None = None,
    from_: When | None = None,
    until: When | None = None,
    description: str | None = None,
    change: bool = True,
) -> Schedule:
    """Makes sure that there is a schedule like this: it calls the function again and again, with these arguments.

    Call it when you deploy, and as often as you like. If the schedule is there and differs, it is changed, and a pause stays;
    with `change=False`, that is an error. What you leave out has its default.

    - `function`: a function, or `function.using(...)` with `principal`, `priority`, `lane`, `meta`, `site` and `expires` (a
      span from each tick).
    - `cron` with `tz`, as in `cron="30 2 * * mon-fri", tz="Europe/Berlin"`, or `every`: the rule.
    - `missed`: `"once"`, `"skip"` or `"all"`; `within`: how late a tick may be; `overlap`: `"skip"`, `"queue"` or `"allow"`.
    - `from_`, `until`: when it begins and ends, as times with their zones, or texts in the zone of the rule.

    Spans are seconds, timedeltas, or texts such as `"1h30m"`.
    """
    it = Schedule(name)
    params = {"schedule": name} | _call(function, args, kwargs, is_new=True)
    params |= _rule(cron, tz, every)
    params |= _ticks(missed, within, overlap, UNSET if from_ is None else from_, UNSET if until is None else until)
    if description is not None:
        params["description"] = description
    if change:
        params["change"] = True
    _ask("add", params, repeat=True)
    return it


def schedules(service: str | None = None) -> list[ScheduleInfo]:
    """The schedules of a service, or all, by name."""
    params = {} if service is None else {"service": service}
    return [_info(shown) for shown in _ask("list", params, repeat=True)["schedules"]]


def next_ticks(
    *,
    cron: str | None = None,
    tz: str | None = None,
    every: Span | None = None,
    count: int = 5,
    from_: When | None = None,
) -> list[datetime]:
    """The next times of a rule, without a schedule."""
    return _next(_rule(cron, tz, every), count, from_)


def _ask(verb: str, params: Mapping[str, object], *, repeat: bool = False) -> Any:
    # Arguments have the same text as those of a call.
    text = json.dumps(params, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return request(f"schedule.{verb}", text, repeat=repeat)


def _info(shown: dict[str, Any]) -> ScheduleInfo:
    return ScheduleInfo(**fields_of(ScheduleInfo, shown))


def _rule(cron: str | None, tz: str | None, every: Span | None) -> dict[str, Any]:
    given = {"cron": cron, "tz": tz, "every": None if every is None else span_text("every", every)}
    return {name: value for name, value in given.items() if value is not None}


def _ticks(
    missed: str | None, within: Span | None, overlap: str | None, from_: When | None, until: When | None
) -> dict[str, Any]:
    given: dict[str, Any] = {
        "missed": missed,
        "within": None if within is None else span_text("within", within),
        "overlap": overlap,
    }
    params = {name: value for name, value in given.items() if value is not None}
    for name, moment in (("from", from_), ("until", until)):
        if moment is not UNSET:
            params[name] = None if moment is None else moment_text(name, moment)
    return params


def _call(
    function: Enqueueable[Any, Any] | Bound[Any, Any],
    args: Iterable[Any],
    kwargs: Mapping[str, Any] | None,
    *,
    is_new: bool,
) -> dict[str, Any]:
    """The call of a schedule. A new schedule gets the options of the function, too."""
    options = None
    if isinstance(function, Bound):
        options, function = function.options, function.function
    if not isinstance(function, Enqueueable):
        raise TypeError(f"a schedule calls a function that is decorated or remote, not {function!r}")
    if options is not None and not is_new:
        raise TypeError("give the options to `set` itself, as in set(f, args=[7], lane='disk')")
    arguments, keywords = tuple(listed("args", args)), dict(kwargs or {})
    if isinstance(function, Decorated):
        function.check_call(arguments, keywords)
        if ensure(chosen(), function.service, function.name) is None:
            raise function.no_service()
    texts = encode_arguments(function.name, arguments, keywords)
    params: dict[str, Any] = {
        "service": function.service,
        "function": function.name,
        "args": json.loads(texts[0]),
        "kwargs": json.loads(texts[1]),
    }
    if is_new:
        params["principal"] = _context.get_principal() if options is None else options.effective_principal()
    return params | ({} if options is None else options.of_schedule())


def _next(params: dict[str, Any], count: int, from_: When | None) -> list[datetime]:
    params = {**params, "count": count}
    if from_ is not None:
        params["from"] = moment_text("from_", from_)
    return [datetime.fromisoformat(tick) for tick in _ask("next", params, repeat=True)["ticks"]]
