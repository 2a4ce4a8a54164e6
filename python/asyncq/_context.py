"""Where this code runs: inside a call or not, on whose behalf, on which connection."""

from __future__ import annotations

import os
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._config import find_binary, store_options
from ._errors import Error
from ._sql import Connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

MAX_NESTING = 32
"""How deep calls inside calls may be."""
MAX_RECORDED = 100
"""How many calls inside one call are recorded."""


class CurrentJob:
    """The job whose call runs here."""

    __slots__ = (
        "_deadline", "_send", "attempt", "cancelled", "completed", "id", "nested", "principal", "site", "token", "unrecorded"
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
        # The calls that it has made at once, and how many more there were.
        self.nested: list[dict[str, Any]] = []
        self.unrecorded = 0

    @property
    def deadline(self) -> datetime | None:
        """When the time limit of this attempt is over, if it has one."""
        from datetime import datetime

        return datetime.fromisoformat(self._deadline) if self._deadline else None

    def progress(self, done: float | None = None, of: float | None = None, note: str | None = None) -> None:
        """Reports how far this call is; `asyncq job show` prints the latest report."""
        if self._send is None:
            raise Error("only functions in a worker can report progress", "decorate the function with `asyncq.function`")
        report = {"done": done, "of": of, "note": note}
        self._send("progress", {"job": self.id, **{name: value for name, value in report.items() if value is not None}})

    def complete(self, connection: object) -> None:
        """Completes this job in your transaction, so that the job is done if and only if your work is committed.

        Raises `Error` when this attempt is no longer the current one: roll back then.
        """
        if Connection(connection).complete(self.id, self.attempt, self.token) != 1:
            raise Error(f"attempt {self.attempt} of job {self.id} is not the current one", "roll back your transaction")
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


ENVIRONMENT = ("ASYNCQ_JOB", "ASYNCQ_ATTEMPT", "ASYNCQ_TOKEN", "ASYNCQ_PRINCIPAL")


running: ContextVar[CurrentJob | None] = ContextVar("asyncq.running", default=None)
"""The job whose call runs here."""
depth: ContextVar[int] = ContextVar("asyncq.depth", default=0)
"""How many calls deep inside it this code is."""
immediate_mode: ContextVar[bool] = ContextVar("asyncq.immediate", default=False)
"""Whether calls run at once, as in tests."""
connection: ContextVar[Connection | None] = ContextVar("asyncq.connection", default=None)
"""The connection on which calls are queued, inside `with asyncq.using(db)`."""
_login: ContextVar[str | None] = ContextVar("asyncq.login", default=None)


class _Setting:
    """A setting that holds from now on, or, in a `with` statement, until its end."""

    def __init__(self, variable: ContextVar[Any], value: object) -> None:
        self._variable = variable
        self._token: Token[Any] = variable.set(value)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._variable.reset(self._token)


class _Scope:
    """A setting that holds inside a `with` statement."""

    def __init__(self, variable: ContextVar[Any], value: object) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._variable.reset(self._token)


def using(connection_: object) -> _Scope:
    """Inside `with asyncq.using(db)`, every call is queued on this connection, in its transaction."""
    return _Scope(connection, Connection(connection_))


def immediate() -> _Scope:
    """For tests: inside `with asyncq.immediate()`, calls run at once. Arguments and values are still stored as JSON and read
    again, as on a queue."""
    return _Scope(immediate_mode, True)


def login(principal: str) -> _Setting:
    """Makes the calls of this thread, or of this asynchronous task, on behalf of `principal`, until `logout()`, or until the
    end of a `with` statement."""
    return _Setting(_login, check_principal(principal))


def logout() -> None:
    """Makes the calls of this thread, or of this asynchronous task, on behalf of nobody in particular again."""
    _login.set(None)


def check_principal(principal: object) -> str:
    """A principal that can be stored."""
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
    """On whose behalf this code runs: that of the running call, or of `login`, or `$ASYNCQ_PRINCIPAL`."""
    job = running.get()
    if job is not None:
        return job.principal
    return _login.get() or os.environ.get("ASYNCQ_PRINCIPAL") or None


def current_job() -> CurrentJob | None:
    """The job whose call runs here, in a worker or in a program that a function is; None outside of calls."""
    return running.get() or _job_of_environment()


def is_async() -> bool:
    """Whether this code runs inside a call."""
    return running.get() is not None or immediate_mode.get() and depth.get() > 0 or _job_of_environment() is not None


def _job_of_environment() -> CurrentJob | None:
    """The job of the program that a function is, or that it has started."""
    job, token = os.environ.get("ASYNCQ_JOB"), os.environ.get("ASYNCQ_TOKEN")
    if not job or not token or not job.isdecimal():
        return None
    import subprocess

    # The store decides: the variables may have outlived their call.
    if subprocess.run([find_binary(), *store_options(), "is-async"], stdout=subprocess.DEVNULL).returncode != 0:
        return None
    attempt = os.environ.get("ASYNCQ_ATTEMPT", "0")
    principal = os.environ.get("ASYNCQ_PRINCIPAL") or None
    site = os.environ.get("ASYNCQ_SITE")
    call = {"job": int(job), "attempt": int(attempt), "token": token, "principal": principal, "site": site, "deadline": None}
    return CurrentJob(call, None)
