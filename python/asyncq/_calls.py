"""Calls on their way into a queue."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import _context, _registration
from ._config import chosen
from ._errors import Error
from ._rpc import INVALID, NOT_FOUND, request
from ._sql import NO_FUNCTION, NO_SERVICE, Connection, Refused, refused

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta
    from typing import TypeAlias

    from ._context import CurrentJob
    from ._job import Job

    Needed: TypeAlias = Job[Any] | int | Iterable[Job[Any] | int]

T = TypeVar("T")

UNSET: Any = ...
"""Marks an option that was left out, where None means something."""


class Options:
    """How a call is queued."""

    __slots__ = (
        "_delay", "_expires", "_run_at", "connection", "hold", "if_taken", "key", "key_until", "lane", "meta", "needs",
        "principal", "priority", "site",
    )  # fmt: skip

    def __init__(
        self,
        connection: object = None,
        *,
        principal: str | None = UNSET,
        run_at: datetime | None = None,
        delay: float | timedelta | None = None,
        priority: int | None = None,
        key: str | None = None,
        hold: bool = False,
        site: str | os.PathLike[str] | None = None,
        lane: str | None = None,
        after: Needed = (),
        after_any: Needed = (),
        after_failed: Needed = (),
        expires: float | timedelta | datetime | None = None,
        key_until: str | None = None,
        if_taken: str | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> None:
        self.connection = None if connection is None else Connection(connection)
        self.principal = principal if principal is UNSET or principal is None else _context.check_principal(principal)
        self._run_at, self._delay = _due(run_at, delay)
        if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int)):
            raise TypeError(f"priority is a whole number, not {priority!r}")
        self.priority = priority
        if key is not None and not isinstance(key, str):
            raise TypeError(f"key is text, not {key!r}")
        if key == "":
            raise ValueError("key is empty")
        self.key = key
        self.hold = bool(hold)
        self.site = None if site is None else os.fsdecode(site)
        if self.site is not None and not os.path.isabs(self.site):
            raise ValueError(f"site is {self.site!r}; it is an absolute path")

        self.lane = _text("lane", lane)
        self.needs = _needs({"ok": after, "any": after_any, "failed": after_failed})
        self._expires = None if expires is None else _expiry(expires)
        self.key_until = _one_of("key_until", key_until, ("started", "ended"))
        self.if_taken = _one_of("if_taken", if_taken, ("keep", "replace", "postpone"))
        if key_until is not None and key is None:
            raise TypeError("key_until needs a key")
        if if_taken is not None and key_until is None:
            raise TypeError("if_taken needs a key_until")
        self.meta = None if meta is None else _meta(meta)

    def expires_at(self, due: float | None) -> float | None:
        """When a call that is due at this time expires, in seconds since 1970 UTC."""
        if self._expires is None:
            return None
        at, span = self._expires
        return at if span is None else (time.time() if due is None else due) + span

    def effective_principal(self) -> str | None:
        """On whose behalf a call is made here."""
        principal: str | None = _context.get_principal() if self.principal is UNSET else self.principal
        return principal

    def of_schedule(self) -> dict[str, object]:
        """These options for the calls of a schedule. Raises `TypeError` for options that only a single call can have."""
        single = {
            "a connection": self.connection,
            "`run_at`": self._run_at,
            "`delay`": self._delay,
            "`key`": self.key,
            "`hold`": self.hold or None,
            "`after`": self.needs,
        }
        for name, value in single.items():
            if value is not None:
                raise TypeError(f"a schedule does not take {name}, which is for one call")
        params: dict[str, object] = {}
        for name in ("priority", "lane", "site"):
            if getattr(self, name) is not None:
                params[name] = getattr(self, name)
        if self.meta is not None:
            params["meta"] = json.loads(self.meta)
        if self._expires is not None:
            if self._expires[1] is None:
                raise TypeError("the calls of a schedule expire a span after their ticks: give `expires` in seconds")
            params["expires"] = span_text("expires", self._expires[1])
        return params

    def due(self) -> float | None:
        """When a call that is made now is due, in seconds since 1970 UTC; None means now."""
        return self._run_at if self._delay is None else time.time() + self._delay


def _text(name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is text, not {value!r}")
    if value == "":
        raise ValueError(f"{name} is empty")
    return value


def _one_of(name: str, value: object, names: tuple[str, ...]) -> str | None:
    if value is not None and value not in names:
        raise ValueError(f"{name} is {value!r}; it is {' or '.join(map(repr, names))}")
    return None if value is None else str(value)


def _needs(lists: dict[str, Needed]) -> str | None:
    """The jobs that a call needs, as JSON; None if there are none."""
    numbers: dict[str, list[int]] = {}
    for end, jobs in lists.items():
        for job in (jobs,) if isinstance(jobs, int) or hasattr(jobs, "id") else jobs:
            number = getattr(job, "id", job)
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"a call runs after jobs, or numbers of jobs, not {job!r}")
            numbers.setdefault(end, []).append(number)
    return json.dumps(numbers, separators=(",", ":")) if numbers else None


def _meta(meta: Mapping[str, object]) -> str:
    if not isinstance(meta, Mapping) or not all(isinstance(name, str) for name in meta):
        raise TypeError(f"meta is a mapping from names to values, not {meta!r}")
    return json.dumps(dict(meta), separators=(",", ":"), allow_nan=False)


def _due(run_at: datetime | None, delay: float | timedelta | None) -> tuple[float | None, float | None]:
    """A time in seconds since 1970 UTC, or a delay in seconds, or neither."""
    if run_at is not None and delay is not None:
        raise TypeError("give either `run_at` or `delay`, not both")
    if run_at is not None:
        return _moment("run_at", run_at), None
    return None, None if delay is None else seconds("delay", delay)


def _expiry(expires: float | timedelta | datetime) -> tuple[float | None, float | None]:
    if isinstance(expires, (int, float)) or hasattr(expires, "total_seconds"):
        return None, seconds("expires", cast("float | timedelta", expires))
    return _moment("expires", expires), None


def _moment(name: str, moment: datetime) -> float:
    if getattr(moment, "tzinfo", None) is None:
        raise ValueError(f"{name} is {moment!r}, without a time zone: use datetime.now(timezone.utc) + ...")
    return moment.timestamp()


def seconds(name: str, span: float | timedelta) -> float:
    """A span in seconds."""
    if isinstance(span, (int, float)):
        found = float(span)
    elif hasattr(span, "total_seconds"):
        found = span.total_seconds()
    else:
        raise TypeError(f"{name} is a number of seconds or a timedelta, not {span!r}")
    if not 0 <= found < 1e10:
        raise ValueError(f"{name} is {span!r}; it is a number of seconds from 0 on, or a timedelta")
    return found


def listed(name: str, values: Iterable[T]) -> list[T]:
    """Values from a list. A text is one value, although Python takes it for a list of its letters."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} is a list, not {values!r}")
    return list(values)


def span_text(name: str, span: float | timedelta | str) -> str:
    """A span as asyncq reads it."""
    if isinstance(span, str):
        return span
    milliseconds = round(seconds(name, span) * 1000)
    if isinstance(span, bool) or milliseconds < 1:
        raise ValueError(f"{name} is {span!r}; it is at least a millisecond")
    return f"{milliseconds}ms"


def moment_text(name: str, moment: datetime | str) -> str:
    """A time as asyncq reads it."""
    return moment if isinstance(moment, str) else _rfc3339(_moment(name, moment))


NO_OPTIONS = Options()


class NewCall:
    """A call to queue. Its arguments are JSON texts already."""

    __slots__ = ("args", "due", "function", "inside", "kwargs", "options", "principal", "service")

    def __init__(
        self, service: str, function: str, arguments: tuple[str, str], options: Options, inside: CurrentJob | None
    ) -> None:
        """`inside` is the job that makes the call, if there is one."""
        self.service = service
        self.function = function
        self.args, self.kwargs = arguments
        self.options = options
        self.due = options.due()
        self.inside = inside
        if inside is None:
            self.principal = options.effective_principal()
        else:
            self.principal = inside.principal
            if options.principal is not UNSET and options.principal != self.principal:
                raise Error("a call inside a running function has the principal of that function", "leave `principal` out", 77)

    def params(self) -> str:
        """The parameters for `enqueue` of rpc."""
        options = self.options
        text = json.dumps
        members = [f'"service":{text(self.service)},"function":{text(self.function)},"args":{self.args}']
        if self.kwargs != "{}":
            members.append(f'"kwargs":{self.kwargs}')
        if self.inside is None:
            members.append(f'"principal":{text(self.principal)}')
        else:
            members.append(f'"inside":{text({"job": self.inside.id, "token": self.inside.token})}')
        if options.key is not None:
            members.append(f'"key":{text(options.key)}')
        if options.hold:
            members.append('"hold":true')
        if options.priority is not None:
            members.append(f'"priority":{options.priority}')
        if options.site is not None:
            members.append(f'"site":{text(options.site)}')
        if self.due is not None:
            members.append(f'"at":{text(_rfc3339(self.due))}')
        for name in ("lane", "key_until", "if_taken"):
            value = getattr(options, name)
            if value is not None:
                members.append(f'"{name}":{text(value)}')
        if options.needs is not None:
            members.append(f'"after":{options.needs}')
        expires_at = options.expires_at(self.due)
        if expires_at is not None:
            members.append(f'"expires":{text(_rfc3339(expires_at))}')
        if options.meta is not None:
            members.append(f'"meta":{options.meta}')
        return "{" + ",".join(members) + "}"


def _rfc3339(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}Z"


class NoService(Exception):
    """The service of a call does not exist."""


def enqueue(call: NewCall, *, is_decorated: bool) -> tuple[int, str | None]:
    """Queues a call. Returns the number of its job, and what a person should know about its function.

    If `is_decorated`, its function is decorated in this process, which registers it. Raises `NoService`.
    """
    connection = call.options.connection or _context.connection.get()
    if connection is not None:
        return _insert(connection, call, is_decorated), None
    asked = chosen()
    params = call.params()
    warning = None
    for attempt in (1, 2):
        if is_decorated:
            registered = _registration.ensure(asked, call.service, call.function)
            if registered is None:
                raise NoService
            warning = warning or registered.warning
        try:
            return int(request("enqueue", params, repeat=call.options.key is not None, of=asked)["job"]), warning
        except Error as error:
            if is_decorated and error.exit_code == INVALID and str(error).startswith(f"`{call.service} {call.function}` "):
                again = f"start this program anew, or run `python -m asyncq.register {call.function.rpartition('.')[0]}`"
                raise TypeError(f"{error.args[0]}; if the function has changed, {again}") from None
            # Since this process has registered the function, somebody may have removed it, or the whole store.
            if error.exit_code != NOT_FOUND or not is_decorated or attempt == 2:
                raise
            _registration.forget(asked, call.service, call.function)
    raise AssertionError


def _insert(connection: Connection, call: NewCall, is_decorated: bool) -> int:
    try:
        try:
            return connection.enqueue(call)
        except Refused as refusal:
            if str(refusal) != NO_FUNCTION or not is_decorated:
                raise
        connection.register(_registration.Definition(call.service, call.function))
        return connection.enqueue(call)
    except Refused as refusal:
        if str(refusal) == NO_SERVICE:
            raise NoService from None
        raise refused(str(refusal), call.function) from refusal.__cause__
