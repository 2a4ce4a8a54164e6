"""Runs calls that asyncq sends, for workers and for `asyncq.process`. docs/protocol.md describes the messages."""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from ._config import class_name, is_conflict
from ._context import HAS_TO_END, CurrentJob, NestedCall, running
from ._errors import Cancelled, Conflict, Later
from ._function import AsyncFunction, Decorated, RawJson, describe
from ._json import NotJson, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LONGEST_TRACEBACK = 64 * 1024
"""How much of a traceback is kept, in bytes; its end says most."""
LONGEST_MESSAGE = 64 * 1024
LONGEST_NESTED = 1024 * 1024
"""How long the records of the calls inside a call may be together, in bytes."""

class CannotRun(Exception):
    """A call that cannot begin."""


class CallRunner:
    """Runs calls of decorated functions, and writes their answers."""

    def __init__(self, modules: Sequence[str] = (), *, is_host: bool = False) -> None:
        """`modules` are those whose functions may be called without the name of their module. In a host, Ctrl-C ends more
        than a call, and is raised."""
        self.process = os.getpid()
        self.is_host = is_host
        self.modules = modules
        self.found: dict[str, Decorated[..., Any]] = {}
        self._loop: Any = None
        self._task: Any = None
        self._is_active = False

    def run(self, number: int, call: dict[str, Any], job: CurrentJob) -> bytes:
        """Runs a call in this thread. Returns the line with the answer."""
        # Context variables that a function sets are gone after its call.
        return copy_context().run(self._run, number, call, job)

    def _run(self, number: int, call: dict[str, Any], job: CurrentJob) -> bytes:
        running.set(job)
        try:
            name = call["function"]
            function = self.found.get(name) or self._find(name)
            if isinstance(function, AsyncFunction):
                value = self._run_coroutine(function, job, call)
            else:
                try:
                    self._is_active = True
                    if job.cancelled:
                        raise Cancelled(HAS_TO_END)
                    value = function.undecorated(*call["args"], **call["kwargs"])
                finally:
                    self._is_active = False
            if os.getpid() != self.process:
                _end_forked(SystemExit(0))
            return self._success(number, job, value)
        except BaseException as error:
            if os.getpid() != self.process:
                # The function has forked, and this is the child. It does not answer for its parent.
                _end_forked(error)
            if self.is_host and isinstance(error, KeyboardInterrupt):
                raise
            if not isinstance(error, Cancelled) and not is_conflict(error):
                print_traceback(error)
            return self.failure(number, job, error)

    def _find(self, name: str) -> Decorated[..., Any]:
        function = find(name, self.modules)
        self.found[name] = function
        return function

    def cancel_task(self) -> bool:
        """Ends an asynchronous call. Returns whether one runs. If its event loop is asleep, this wakes it."""
        task = self._task
        if task is not None:
            self._loop.get_loop().call_soon_threadsafe(task.cancel)
        return task is not None

    def cancel(self) -> None:
        """Ends the call in this thread. A signal handler calls this."""
        if not self.cancel_task() and self._is_active:
            raise Cancelled(HAS_TO_END)

    def _run_coroutine(self, function: AsyncFunction[..., Any], job: CurrentJob, call: dict[str, Any]) -> Any:
        import asyncio

        if self._loop is None:
            self._loop = asyncio.Runner()

        async def run() -> Any:
            self._task = asyncio.current_task()
            try:
                if job.cancelled:
                    raise Cancelled(HAS_TO_END)
                return await function.undecorated(*call["args"], **call["kwargs"])
            finally:
                self._task = None

        try:
            # The runner would use the context of its first call for all of them.
            in_loop = partial(self._loop.run, run(), context=copy_context())
            return _in_other_thread(in_loop) if _has_loop() else in_loop()
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
            raise Cancelled(HAS_TO_END) from None

    def close(self) -> None:
        """Closes the event loop, if calls needed one."""
        if self._loop is not None:
            self._loop.close() if not _has_loop() else _in_other_thread(self._loop.close)

    def _success(self, number: int, job: CurrentJob, value: Any) -> bytes:
        try:
            text = "null" if value is None else encode(value)
        except NotJson as flaw:
            raise TypeError(f"the value of the function {flaw}") from None
        more = nested(job) if job.nested else ""
        if job.completed:
            more += ',"completed":true'
        return f'{{"jsonrpc":"2.0","id":{number},"result":{{"value":{text},"output":[0,0]{more}}}}}\n'.encode()

    def failure(self, number: int, job: CurrentJob, error: BaseException) -> bytes:
        """The answer to a call that ended in an exception."""
        kind, code = "error", 1
        if isinstance(error, CannotRun):
            kind, code = "cannot-run", 127
        elif isinstance(error, Later):
            kind, code = "snooze", 75
        elif isinstance(error, Cancelled) or is_conflict(error):
            kind, code = "conflict", 75
        data: dict[str, Any] = {"kind": kind, "output": [0, 0]}
        if isinstance(error, (Conflict, Later)) and error.pause is not None:
            data["pause"] = error.pause
        if not isinstance(error, (CannotRun, Later)):
            data["type"] = class_name(type(error))
            data["traceback"] = _traceback(error)
        message = str(error) if isinstance(error, (CannotRun, Later)) else describe(error)
        text = json.dumps({"code": code, "message": message[:LONGEST_MESSAGE], "data": data}, ensure_ascii=True)
        members = nested(job)
        if members:
            # It goes inside `data`, which comes last.
            text = text[:-2] + members + "}}"
        return f'{{"jsonrpc":"2.0","id":{number},"error":{text}}}\n'.encode()


def _has_loop() -> bool:
    """Whether an event loop runs in this thread, as in a program that drains inside a coroutine."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_other_thread(function: Callable[[], Any]) -> Any:
    """Calls a function in another thread, in the context of this one, and waits for it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(copy_context().run, function).result()


def find(name: str, modules: Sequence[str] = ()) -> Decorated[..., Any]:
    """The decorated function with this name: `module.function`, or only `function` for one of `modules`. Raises `CannotRun`."""
    module, _, attribute = name.rpartition(".")
    if not module:
        having = [module for module in modules if hasattr(sys.modules[module], name)]
        if not having:
            raise CannotRun(f"this worker has no function `{name}`")
        module = having[0]
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:
        raise CannotRun(f"the module `{module}` cannot be imported: {describe(error)}") from error
    if found is None:
        raise CannotRun(f"the module `{module}` has no function `{attribute}`")
    if not isinstance(found, Decorated):
        raise CannotRun(f"`{name}` is not decorated with `asyncq.function`")
    return found


def nested(job: CurrentJob) -> str:
    """The members of an answer that list the calls inside the call; empty if it made none."""
    if not job.nested:
        return ""
    texts: list[str] = []
    left = LONGEST_NESTED
    for record in _in_order(job.nested):
        text = _record(record)
        left -= len(text.encode())
        if left < 0:
            break
        texts.append(text)
    more = job.unrecorded + job.recorded - len(texts)
    return f',"nested":[{",".join(texts)}]' + (f',"unrecorded":{more}' if more else "")


def _in_order(calls: list[NestedCall]) -> Iterator[NestedCall]:
    """All calls, each before those that it has made."""
    for call in calls:
        yield call
        yield from _in_order(call.nested)


def _record(call: NestedCall) -> str:
    members = call.members.items()
    texts = (f'"{name}":{value if isinstance(value, RawJson) else json.dumps(value)}' for name, value in members)
    return "{" + ",".join(texts) + "}"


def _traceback(error: BaseException) -> str:
    from traceback import format_exception

    text = "".join(format_exception(type(error), error, _below_us(error)))
    encoded = text.encode(errors="replace")
    if len(encoded) <= LONGEST_TRACEBACK:
        return text
    return "...\n" + encoded[-LONGEST_TRACEBACK + 4 :].decode(errors="ignore")


def _below_us(error: BaseException) -> Any:
    """The traceback from the function on, without this package's frames above it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") == __name__:
        traceback = traceback.tb_next
    return traceback


def print_traceback(error: BaseException) -> None:
    """Prints a traceback to the log of the call."""
    try:
        sys.stderr.write(_traceback(error))
    except Exception:
        pass  # the answer has it too


def _end_forked(error: BaseException) -> None:
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
        print_traceback(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def hello(calls: int, **more: Any) -> bytes:
    """The hello, which is the first message."""
    from . import __version__

    params = {"protocol": 1, "worker": f"asyncq for Python {__version__}", "calls": calls, **more}
    return json.dumps({"jsonrpc": "2.0", "id": 0, "method": "hello", "params": params}).encode() + b"\n"
