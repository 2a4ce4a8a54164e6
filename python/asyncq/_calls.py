"""Calls that are to be queued, and how they get there."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from . import _context, _registration
from ._config import chosen
from ._errors import Error
from ._rpc import NOT_FOUND, request
from ._sql import NO_FUNCTION, NO_SERVICE, Connection, Refused, refused

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from ._context import CurrentJob

UNSET: Any = ...
"""Marks an option that was left out, where None means something."""


class Options:
    """How a call is queued."""

    __slots__ = ("_delay", "_run_at", "connection", "hold", "key", "principal", "priority", "site")

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

    def due(self) -> float | None:
        """When a call that is made now is due, in seconds since 1970 UTC; None is now."""
        return self._run_at if self._delay is None else time.time() + self._delay


def _due(run_at: datetime | None, delay: float | timedelta | None) -> tuple[float | None, float | None]:
    """A time in seconds since 1970 UTC, or a delay in seconds, or neither."""
    if run_at is not None and delay is not None:
        raise TypeError("give either `run_at` or `delay`, not both")
    if run_at is not None:
        if getattr(run_at, "tzinfo", None) is None:
            raise ValueError(f"run_at is {run_at!r}, without a time zone: use datetime.now(timezone.utc) + ...")
        return run_at.timestamp(), None
    if delay is None:
        return None, None
    if isinstance(delay, (int, float)):
        seconds = float(delay)
    elif hasattr(delay, "total_seconds"):
        seconds = delay.total_seconds()
    else:
        raise TypeError(f"delay is a number of seconds or a timedelta, not {delay!r}")
    if not 0 <= seconds < 1e10:
        raise ValueError(f"delay is {delay!r}; it is a number of seconds from 0 on, or a timedelta")
    return None, seconds


NO_OPTIONS = Options()


class NewCall:
    """A call that is to be queued. Its arguments are JSON text already."""

    __slots__ = ("args", "due", "function", "inside", "kwargs", "options", "principal", "service")

    def __init__(
        self, service: str, function: str, arguments: tuple[str, str], options: Options, inside: CurrentJob | None
    ) -> None:
        """`inside` is the job that makes the call, if one does."""
        self.service = service
        self.function = function
        self.args, self.kwargs = arguments
        self.options = options
        self.due = options.due()
        self.inside = inside
        if inside is None:
            self.principal = _context.get_principal() if options.principal is UNSET else options.principal
        else:
            self.principal = inside.principal
            if options.principal is not UNSET and options.principal != self.principal:
                raise Error("a call inside a running function has the principal of that function", "leave `principal` out", 77)

    def params(self) -> str:
        """As `enqueue` of rpc takes it."""
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
        return "{" + ",".join(members) + "}"


def _rfc3339(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}Z"


class NoService(Exception):
    """The service of a call does not exist."""


def enqueue(call: NewCall, *, is_decorated: bool) -> tuple[int, str | None]:
    """Queues a call; gives the number of its job, and what a person has to know of its function.

    `is_decorated` says whether its function is decorated in this process, which then registers it. Raises `NoService`.
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
            # Somebody may have removed the function, or all of the store, since this process has registered it.
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
