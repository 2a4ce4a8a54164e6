"""Statements on a connection of the application. docs/sql.md says what clients may do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ._errors import Error, NoStore

if TYPE_CHECKING:
    from ._calls import NewCall
    from ._registration import Definition

NO_SERVICE = "asyncq: no such service"
NO_FUNCTION = "asyncq: no such function on this service"


_IF_TAKEN = {
    "keep": "key = excluded.key",
    "replace": "args = excluded.args, kwargs = excluded.kwargs",
    "postpone": "args = excluded.args, kwargs = excluded.kwargs, run_at = excluded.run_at",
}
"""What becomes of the call that has the key, as docs/sql.md describes it."""


class Refused(Exception):
    """The schema refused a statement, with this message."""


class Connection:
    """A connection of the application: sqlite3's, apsw's, or any other of the DB-API."""

    def __init__(self, connection: object) -> None:
        cursor = getattr(connection, "cursor", None)
        if not callable(cursor) or _is_asynchronous(connection):
            raise TypeError(
                f"{type(connection).__name__} is not a database connection: pass an open one, such as sqlite3.connect(...)"
            )
        self._connection: Any = connection
        self._is_format = _paramstyle(type(connection)) in ("format", "pyformat")

    def enqueue(self, call: NewCall) -> int:
        """Inserts a call in the connection's transaction. Returns the number of its job. Raises `Refused`."""
        columns: dict[str, object] = {"service": call.service, "function": call.function, "args": call.args}
        options = call.options
        if call.kwargs != "{}":
            columns["kwargs"] = call.kwargs
        columns["principal"] = call.principal
        if call.inside is not None:
            columns["parent"] = call.inside.id
            columns["site"] = call.inside.site
        if options.site is not None:
            columns["site"] = options.site
        if options.hold:
            columns["state"] = "held"
        if options.priority is not None:
            columns["priority"] = options.priority
        if call.due is not None:
            columns["run_at"] = round(call.due * 1000)
        more = {"lane": options.lane, "after": options.needs, "key_until": options.key_until, "meta": options.meta}
        columns.update((name, value) for name, value in more.items() if value is not None)
        expires_at = options.expires_at(call.due)
        if expires_at is not None:
            columns["expires_at"] = round(expires_at * 1000)
        again = ""
        if options.key is not None:
            columns["key"] = options.key
            again = f" ON CONFLICT (key) DO UPDATE SET {_IF_TAKEN[options.if_taken or 'keep']}"
        places = ", ".join("?" * len(columns))
        sql = f"INSERT INTO asyncq_job ({', '.join(columns)}) VALUES ({places}){again} RETURNING id"
        [row] = self._run(sql, tuple(columns.values()))
        return int(next(iter(row.values())) if isinstance(row, dict) else row[0])

    def register(self, definition: Definition) -> None:
        """Adds a function in the connection's transaction, unless it exists. Raises `Refused`."""
        columns = definition.columns()
        places = ", ".join("?" * len(columns))
        sql = f"INSERT INTO asyncq_function ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING"
        self._run(sql, tuple(columns.values()))

    def complete(self, job: int, attempt: int, token: str) -> int:
        """Completes a running job. Returns the number of changed rows: 1, or 0 if another attempt has replaced this one."""
        sql = (
            "UPDATE asyncq_job SET state = 'completed'"
            " WHERE id = ? AND attempt = ? AND token = ? AND state = 'processing' RETURNING id"
        )
        return len(self._run(sql, (job, attempt, token)))

    def _run(self, sql: str, values: tuple[object, ...]) -> Any:
        if self._is_format:
            sql = sql.replace("?", "%s")
        cursor = self._connection.cursor()
        try:
            cursor.execute(sql, values)
            rows = cursor.fetchall() if "RETURNING" in sql else ()
        except Exception as error:
            message = str(error)
            if "asyncq: " in message:
                raise Refused(message[message.index("asyncq: ") :].splitlines()[0]) from error
            if "asyncq_" in message and ("no such table" in message or "does not exist" in message):
                raise NoStore(
                    "this database contains no store", "`asyncq --db FILE init` adds asyncq's tables to it", 69
                ) from error
            raise
        return rows


def _is_asynchronous(connection: object) -> bool:
    """Whether the methods of a connection have to be awaited, as with aiosqlite and psycopg's asynchronous class."""
    methods = (getattr(type(connection), name, None) for name in ("commit", "execute"))
    return any(getattr(getattr(method, "__code__", None), "co_flags", 0) & 0x80 for method in methods)


def _paramstyle(kind: type) -> str:
    """How a connection of this class marks parameters: as its module says, or otherwise as SQLite does."""
    for base in kind.__mro__:
        module = base.__module__.partition(".")[0]
        style = getattr(sys.modules.get(module), "paramstyle", None)
        if isinstance(style, str):
            return style
        if module == "django":
            return "format"
    return "qmark"


def refused(message: str, name: str) -> Error:
    """The exception for a refusal of the schema, for the caller of `name`."""
    return Error(f"the call of `{name}` was refused: {message.removeprefix('asyncq: ')}")
