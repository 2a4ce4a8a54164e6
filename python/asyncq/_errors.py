"""What asyncq raises, and what functions may raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta


class Error(Exception):
    """asyncq refuses something, or cannot do it. The message says what happened and what to do next."""

    hint: str | None
    """What to do next, if there is more to say than the message."""
    exit_code: int
    """The exit code with which the command line ends for the same reason."""

    def __init__(self, message: str, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; {self.hint}" if self.hint else message


class NoStore(Error):
    """asyncq finds no store at the configured place."""


class Unanswered(Error):
    """The `asyncq` process ended before it answered. Nobody knows whether the call was queued. A call with a
    `key` is repeated by itself."""


class Failed(Error):
    """A job did not complete. `error` says why. Its `kind` is `cancelled` if somebody cancelled the job; `error` is None if plain
    SQL did that."""

    job: int
    error: Failure | None

    def __init__(self, job: int, error: Failure | None) -> None:
        if error is None:
            message = f"job {job} was cancelled"
        elif error.kind == "cancelled":
            message = f"job {job} was {error.message}"
        else:
            message = f"job {job} failed: {error.message}"
        super().__init__(message)
        self.job = job
        self.error = error

    def __reduce__(self) -> tuple[type[Failed], tuple[int, Failure | None]]:
        return Failed, (self.job, self.error)


class Failure:
    """Why a job, or its latest attempt, failed."""

    __slots__ = ("exit_code", "kind", "message", "traceback", "type")

    kind: str
    """`error`, `conflict`, `cannot-run`, `timeout`, `crash` ..., as `asyncq job show --json` prints it."""
    message: str
    type: str | None
    """The class of the exception, as `package.module.Class`."""
    traceback: str | None
    exit_code: int | None

    def __init__(self, error: dict[str, object]) -> None:
        self.kind = str(error.get("kind"))
        self.message = str(error.get("message"))
        kind, traceback, code = error.get("type"), error.get("traceback"), error.get("exit_code")
        self.type = kind if isinstance(kind, str) else None
        self.traceback = traceback if isinstance(traceback, str) else None
        self.exit_code = code if isinstance(code, int) else None

    def __repr__(self) -> str:
        return f"<asyncq.Failure {self.kind}: {self.message}>"


class Conflict(Exception):
    """Raise it in a function, and asyncq tries the call again, three times in all.

    `pause` is the number of seconds until then, at most 60. Without it, asyncq waits for a random time.
    """

    pause: float | None

    def __init__(self, *args: object, pause: float | None = None) -> None:
        super().__init__(*args)
        if pause is not None and not 0 <= pause <= 60:
            raise ValueError(f"pause is {pause!r}; it is a number of seconds from 0 to 60")
        self.pause = pause


class Later(Exception):
    """Raise it in a function, and asyncq runs the call later. Nothing has failed, and the attempt does not count.

    `when` is a number of seconds, a timedelta, or a time with its zone; at most 366 days.
    """

    pause: float

    def __init__(self, when: float | timedelta | datetime, *args: object) -> None:
        from datetime import datetime, timedelta, timezone

        super().__init__(when, *args)
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise ValueError(f"{when} has no time zone")
            when = max(when - datetime.now(timezone.utc), timedelta())
        pause = when.total_seconds() if isinstance(when, timedelta) else float(when)
        if not 0 <= pause <= 366 * 86400:
            raise ValueError(f"{when!r} is not from now to 366 days later")
        self.pause = pause

    def __str__(self) -> str:
        return " ".join(map(str, self.args[1:])) or f"it asks to run {self.pause:g} seconds later"


class Cancelled(BaseException):
    """Raised inside a function when its job is cancelled, its time limit is over, or its processor stops."""


class MissingServiceWarning(RuntimeWarning):
    """A call ran at once because its service does not exist."""
