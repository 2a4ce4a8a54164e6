"""The context of running code: the call, the principal and the connection."""

from __future__ import annotations

import math
import os
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._config import find_binary, store_options
from ._errors import Cancelled, Error
from ._sql import Connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

HAS_TO_END = "the job was cancelled, its time limit is over, or its processor stops"
MAX_NESTING = 32
"""How deep calls inside calls may be."""
MAX_RECORDED = 100
"""How many calls inside one call are recorded."""


class CurrentJob:
    """The job whose call runs here."""

    __slots__ = (
        "_deadline", "_send", "attempt", "cancelled", "completed", "id", "nested", "principal", "recorded", "site", "token",
        "unrecorded",
    )  # fmt: skip

    id: int
    attempt: int
    principal: str | None
    site: str | None
    cancelled: bool
    """Whether this call has been asked to end."""

    def __init__(self, call: dict[str, Any], send: Callable[[str, dict[str, Any]], None] | None) -> None:
        self.id = call["job"]
        self.attempt = call["attempt"]
        self.principal = call["principal"]
        self.site = call["site"]
        self.token: str = call["token"]
        self._deadline: str | None = call["deadline"]
        self._send = send
        self.cancelled = False
        self.completed = False
        # The calls inside it, each with the calls inside that; how many there are, and how many more there
        # were.
        self.nested: list[NestedCall] = []
        self.recorded = 0
        self.unrecorded = 0

    @property
    def deadline(self) -> datetime | None:
        """When the time limit of this attempt is over, if it has one."""
        from datetime import datetime

        return datetime.fromisoformat(self._deadline) if self._deadline else None

    def progress(self, done: float | None = None, of: float | None = None, note: str | None = None) -> None:
        """Reports how far this call has got. `asyncq job show` prints the latest report."""
        if self._send is None:
            raise Error("only functions in a worker can report progress", "decorate the function with `asyncq.function`")
        for name, value in (("done", done), ("of", of)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}; it is a finite number")
        if note is not None and not isinstance(note, str):
            raise TypeError(f"note is text, not {note!r}")
        report = {"done": done, "of": of, "note": note}
        self._send("progress", {"job": self.id, **{name: value for name, value in report.items() if value is not None}})
        if self.cancelled:
            # The signal may have come while the line was sent.
            raise Cancelled(HAS_TO_END)

    def complete(self, connection: object) -> None:
        """Completes this job in your transaction, so that the job is done if and only if your work is committed.

        Raises `Error` if another attempt has replaced this one. Roll back your transaction in that case.
        """
        if Connection(connection).complete(self.id, self.attempt, self.token) != 1:
            raise Error(f"attempt {self.attempt} of job {self.id} has been replaced", "roll back your transaction")
        self.completed = True

    def environ(self) -> dict[str, str]:
        """A copy of the environment for programs that this call starts, so that `asyncq` there knows the call."""
        environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
        return {**environment, **self.variables()}

    def variables(self) -> dict[str, str]:
        """The environment variables of this call."""
        variables = {"ASYNCQ_JOB": str(self.id), "ASYNCQ_ATTEMPT": str(self.attempt), "ASYNCQ_TOKEN": self.token}
        if self.principal is not None:
            variables["ASYNCQ_PRINCIPAL"] = self.principal
        return variables


class NestedCall:
    """The record of a call that ran at once, inside another one."""

    __slots__ = ("members", "nested")

    def __init__(self, members: dict[str, Any]) -> None:
        self.members = members
        self.nested: list[NestedCall] = []


ENVIRONMENT = ("ASYNCQ_JOB", "ASYNCQ_ATTEMPT", "ASYNCQ_TOKEN", "ASYNCQ_PRINCIPAL")


running: ContextVar[CurrentJob | None] = ContextVar("asyncq.running", default=None)
"""The job whose call runs here."""
parent: ContextVar[NestedCall | None] = ContextVar("asyncq.parent", default=None)
"""The nested call that runs here, if it is one."""
depth: ContextVar[int] = ContextVar("asyncq.depth", default=0)
"""How many calls deep inside it this code is."""
immediate_mode: ContextVar[bool] = ContextVar("asyncq.immediate", default=False)
"""Whether calls run at once, as in tests."""
connection: ContextVar[Connection | None] = ContextVar("asyncq.connection", default=None)
"""The connection on which calls are queued, inside `with asyncq.using(db)`."""
_login: ContextVar[str | None] = ContextVar("asyncq.login", default=None)


class Scope:
    """Sets a context variable until the end of a `with` statement, or with `at_once` even without one."""

    def __init__(self, variable: ContextVar[Any], value: object, *, at_once: bool = False) -> None:
        self._variable, self._value = variable, value
        self._tokens: list[Token[Any]] = [variable.set(value)] if at_once else []
        self._is_set = at_once

    def __enter__(self) -> None:
        if self._is_set:
            self._is_set = False
        else:
            self._tokens.append(self._variable.set(self._value))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._variable.reset(self._tokens.pop())


def using(db: object) -> Scope:
    """Inside `with asyncq.using(db)`, every call is queued on this connection, in its transaction."""
    return Scope(connection, Connection(db))


def immediate() -> Scope:
    """For tests: inside `with asyncq.immediate()`, calls run at once. Arguments and values are still stored as JSON and read
    again, as on a queue."""
    return Scope(immediate_mode, True)


def login(principal: str) -> Scope:
    """Makes the calls of this thread, or of this asynchronous task, on behalf of `principal`, until `logout()`, or until the
    end of a `with` statement."""
    return Scope(_login, check_principal(principal), at_once=True)


def logout() -> None:
    """Ends `login`: makes the calls of this thread, or of this asynchronous task, on behalf of the default principal again."""
    _login.set(None)


def check_principal(principal: object) -> str:
    """Checks that a principal can be stored."""
    if not isinstance(principal, str):
        raise TypeError(f"a principal is text, not {type(principal).__name__}")
    if not principal or len(principal.encode(errors="replace")) > 255 or not _INVISIBLE.isdisjoint(principal):
        raise ValueError(f"{principal!r} cannot be a principal: it is 1 to 255 bytes of text without control characters")
    return principal


_INVISIBLE = frozenset(
    chr(code)
    for first, last in ((0, 31), (127, 159), (1564, 1564), (8203, 8207), (8232, 8238), (8288, 8297), (65279, 65279))
    for code in range(first, last + 1)
)
"""Characters that control a terminal, or the direction of its text."""


def get_principal() -> str | None:
    """The principal on whose behalf this code runs: that of the running call, of `login`, or `$ASYNCQ_PRINCIPAL`."""
    job = running.get()
    if job is not None:
        return job.principal
    return _login.get() or _variable("ASYNCQ_PRINCIPAL")


def current_job() -> CurrentJob | None:
    """The job that runs here, in a worker or in the program of a function; None outside of calls."""
    return running.get() or _job_of_environment()


def is_async() -> bool:
    """Whether this code runs inside a call."""
    return running.get() is not None or immediate_mode.get() and depth.get() > 0 or _job_of_environment() is not None


_replaced: dict[str, str | None] | None = None
"""What the variables of a call were before a drain in this process set them for the call that it runs. They concern the
thread of that call alone, which knows its job anyway."""
_over: set[str] = set()
"""Tokens of attempts that are over."""


def replace_environment(before: dict[str, str | None] | None) -> None:
    """Sets the variables of a call for all other threads of this process."""
    global _replaced
    _replaced = before


def _variable(name: str) -> str | None:
    return (os.environ.get(name) if _replaced is None else _replaced.get(name)) or None


def _job_of_environment() -> CurrentJob | None:
    """The job of the function that is this program, or that has started it."""
    job = _variable("ASYNCQ_JOB")
    # Most programs are no functions, and ask with each call.
    if not job or not job.isdecimal():
        return None
    token = _variable("ASYNCQ_TOKEN")
    if not token or token in _over:
        return None
    import subprocess

    # The store decides: the variables may have outlived their call.
    if subprocess.run([find_binary(), *store_options(), "is-async"], stdout=subprocess.DEVNULL).returncode != 0:
        _over.add(token)
        return None
    call = {
        "job": int(job),
        "attempt": int(_variable("ASYNCQ_ATTEMPT") or 0),
        "token": token,
        "principal": _variable("ASYNCQ_PRINCIPAL"),
        "site": os.environ.get("ASYNCQ_SITE"),
        "deadline": None,
    }
    return CurrentJob(call, None)
