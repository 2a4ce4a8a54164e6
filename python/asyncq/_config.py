"""Settings of this process, and the `asyncq` program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Literal

from ._errors import Conflict, Error, Later


class Settings:
    """What `configure` sets."""

    db: str | None = None
    binary: str | None = None
    missing_service: Literal["run", "error"] = "run"
    threads: int = 1
    conflicts: tuple[str, ...] = ()


settings = Settings()


def configure(
    *,
    db: str | os.PathLike[str] | None = None,
    binary: str | os.PathLike[str] | None = None,
    missing_service: Literal["run", "error"] | None = None,
    threads: int | None = None,
    conflicts: Iterable[str | type[BaseException]] | None = None,
) -> None:
    """Changes settings of this process. What you leave out stays the same.

    - `db`: the store, instead of `$ASYNCQ_DB`.
    - `binary`: the `asyncq` program, instead of `$ASYNCQ_BIN`.
    - `missing_service`: what a call does when its service does not exist: it runs at once with a warning (`"run"`), or it
      raises (`"error"`).
    - `threads`: how many calls a worker of this program's functions runs at once.
    - `conflicts`: exceptions, or their names as `package.module.Class`, after which a call is tried again, as after
      `asyncq.Conflict`.
    """
    if db is not None:
        settings.db = os.path.abspath(db)
    if binary is not None:
        settings.binary = os.path.abspath(binary)
    if missing_service is not None:
        if missing_service not in ("run", "error"):
            raise ValueError(f"missing_service is {missing_service!r}; it can be 'run' or 'error'")
        settings.missing_service = missing_service
    if threads is not None:
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads is {threads!r}; it is a number from 1 on")
        settings.threads = threads
    if conflicts is not None:
        if isinstance(conflicts, str):
            raise TypeError("conflicts is a list of exceptions or of their names")
        settings.conflicts = tuple(kind if isinstance(kind, str) else class_name(kind) for kind in conflicts)


def class_name(kind: type) -> str:
    """A class as `package.module.Class`; only the name of a built-in class."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def chosen_binary() -> str | None:
    """The `asyncq` program that somebody has chosen, if any."""
    return settings.binary or os.environ.get("ASYNCQ_BIN") or None


def find_binary() -> str:
    """The path of the `asyncq` program: `configure(binary=)`, `$ASYNCQ_BIN`, next to the interpreter, or on `$PATH`."""
    chosen = chosen_binary()
    if chosen:
        if os.path.isfile(chosen) and os.access(chosen, os.X_OK):
            return os.path.abspath(chosen)
        raise Error(f"cannot find the program `{chosen}`", "set $ASYNCQ_BIN to the path of the `asyncq` program", 69)
    folders = [os.path.dirname(sys.executable), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    for folder in folders:
        path = os.path.join(folder, "asyncq")
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise Error(
        "cannot find the program `asyncq`, neither next to the Python interpreter nor on $PATH",
        "install it, or set $ASYNCQ_BIN to its path",
        69,
    )


def chosen_store() -> str | None:
    """The store that somebody has chosen, or None for asyncq's default."""
    return settings.db or os.environ.get("ASYNCQ_DB") or None


Chosen = tuple[str | None, str | None]
"""A store and a program, as they were chosen."""


def chosen() -> Chosen:
    """The store and the program that apply now."""
    return chosen_store(), chosen_binary()


_resolved: dict[str, str] = {}


def store_options() -> tuple[str, ...]:
    """The options that tell `asyncq` the store. A relative path begins at the folder in which it was first used."""
    store = chosen_store()
    if store is None:
        return ()
    if "://" in store:
        return ("--db", store)
    return ("--db", _resolved.setdefault(store, os.path.abspath(store)))


CONFLICTS = (
    "psycopg.errors.DeadlockDetected",
    "psycopg.errors.SerializationFailure",
    "psycopg2.errors.DeadlockDetected",
    "psycopg2.errors.SerializationFailure",
    "transaction.interfaces.TransientError",
    "ZODB.POSException.ConflictError",
)
"""Exceptions after which a call is tried again, by name: this package imports none of these libraries."""


def is_conflict(error: BaseException) -> bool:
    """Whether an exception, or its cause, means that another try may succeed."""
    if isinstance(error, (Conflict, Later)):
        return True
    names = {*CONFLICTS, *settings.conflicts}
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            return False
        kinds = [class_name(kind) for kind in type(cause).__mro__]
        if not names.isdisjoint(kinds):
            return True
        if "sqlite3.OperationalError" in kinds and "locked" in str(cause):
            return True
        cause = cause.__cause__
    return False
