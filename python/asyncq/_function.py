"""The decorator, and the functions that it makes."""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from functools import update_wrapper
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from ._calls import NO_OPTIONS, NewCall, NoService, Options, enqueue, listed
from ._config import chosen, class_name, find_binary, is_conflict, settings, store_options
from ._context import (
    MAX_NESTING,
    MAX_RECORDED,
    CurrentJob,
    NestedCall,
    connection,
    current_job,
    depth,
    immediate_mode,
    parent,
    running,
)
from ._errors import Conflict, Error, MissingServiceWarning
from ._job import Job
from ._json import NotJson, decode, encode, encode_arguments
from ._registration import decorated_as, ensure
from ._rpc import BUSY

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from datetime import datetime, timedelta
    from os import PathLike
    from typing import Literal, Protocol, Self, TypedDict, Unpack

    from ._calls import Needed
    from ._signature import Signature

    class OptionNames(TypedDict, total=False):
        """The options of a call."""

        principal: str | None
        run_at: datetime | None
        delay: float | timedelta | None
        priority: int | None
        key: str | None
        hold: bool
        site: str | PathLike[str] | None
        lane: str | None
        after: Needed
        after_any: Needed
        after_failed: Needed
        expires: float | timedelta | datetime | None
        key_until: Literal["started", "ended"] | None
        if_taken: Literal["keep", "replace", "postpone"] | None
        meta: Mapping[str, object] | None

    class PolicyNames(TypedDict, total=False):
        """What is registered with a function."""

        takes: str | None
        secret: Iterable[str | int]
        env_file: str | PathLike[str] | None
        retries: int
        backoff: str
        retry_on: str
        no_retry_on: str
        conflicts: int
        lane: str
        on_error: str
        on_success: str

    class Decorator(Protocol):
        """What `function(...)` returns."""

        @overload
        def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncFunction[P, R]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, function: Callable[P, R], /) -> Function[P, R]: ...


_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

decorated: list[Decorated[..., Any]] = []
"""All decorated functions of this process."""


POLICY = frozenset(
    (
        "takes", "secret", "env_file", "retries", "backoff", "retry_on", "no_retry_on", "conflicts", "lane", "on_error",
        "on_success",
    )  # fmt: skip
)
"""The options of the decorator, which are those of `asyncq function add`."""


def function(service: str, **policy: Unpack[PolicyNames]) -> Decorator:
    """Makes calls of the decorated function run later, on this service.

    The options are written as on the command line: `retries=5, backoff="15s..1h", retry_on="exit,timeout"`, `no_retry_on`,
    `conflicts`, `lane`, `on_error="alerts/page"`, `on_success`. They are registered with the function.

    - `takes`: the signature that is registered, instead of the one that the parameters and their annotations make; None for none.
    - `secret`: the names of arguments, or their places from 1, that asyncq hides.
    - `env_file`: a file of environment variables for the worker, relative to the folder of the function.

    A call queues the function with its arguments and returns None. Inside a running function, a call runs at once instead and
    returns its value. If the service does not exist, the call runs at once and warns you.
    """
    if not isinstance(service, str):
        raise TypeError("name a service, as in @asyncq.function('events')")
    unknown = sorted(policy.keys() - POLICY)
    if unknown:
        raise TypeError(f"asyncq.function has no option `{unknown[0]}`; it has {', '.join(sorted(POLICY))}")
    inputs = _inputs(policy)

    def decorate(undecorated: Callable[P, Any]) -> Any:
        if isinstance(undecorated, Decorated):
            raise TypeError(f"`{undecorated.name}` is decorated already")
        if not isinstance(undecorated, FunctionType):
            raise TypeError(f"asyncq.function decorates functions, not {undecorated!r}")
        flags = undecorated.__code__.co_flags
        if flags & (_GENERATOR | _ASYNC_GENERATOR):
            raise TypeError(f"`{undecorated.__qualname__}` is a generator, which cannot run later: return a list instead")
        kind = AsyncFunction if flags & _COROUTINE else Function
        made: Decorated[..., Any] = kind(service, undecorated)
        made._policy = {**policy, **inputs}
        decorated_as[service, made.name] = made
        return made

    return decorate


def _inputs(policy: PolicyNames) -> dict[str, Any]:
    """The part of a registration about arguments and variables."""
    found: dict[str, Any] = {}
    takes = policy.get("takes")
    if takes is not None and not isinstance(takes, str):
        raise TypeError(f"takes is a signature such as 'to [body:text]', not {takes!r}")
    if "secret" in policy:
        found["secret"] = listed("secret", policy["secret"])
        for argument in found["secret"]:
            if isinstance(argument, bool) or not isinstance(argument, (str, int)):
                raise TypeError(f"secret is a list of names of arguments, and of places from 1, not of {argument!r}")
    if policy.get("env_file") is not None:
        found["env_file"] = os.fsdecode(cast("str", policy["env_file"]))
    return found


class Enqueueable(Generic[P, R]):
    """A function of a service, decorated here or not."""

    service: str

    @property
    def name(self) -> str:
        raise NotImplementedError

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Queues a call, even inside a running function."""
        return self._enqueue(args, kwargs, NO_OPTIONS)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Queues a call, without blocking the event loop."""
        return await self._aqueue(args, kwargs, NO_OPTIONS)

    def using(self, db: object = None, /, **options: Unpack[OptionNames]) -> Bound[P, R]:
        """The same function with options for its calls. With `db`, an open connection, they are queued in its transaction.

        - `principal`: on whose behalf; None for nobody.
        - `run_at`, a time with its zone, or `delay`, in seconds or a timedelta: when the call is due.
        - `priority`: smaller numbers run first.
        - `key`: makes it safe to repeat the call: the same call with the same key stays one job.
        - `hold`: hold the job until `Job.start()`.
        - `site`: the absolute path of the folder to run in.
        - `lane`: of the calls of a service in one lane, one runs at a time.
        - `after`, `after_any`, `after_failed`: jobs, or their numbers, that have to complete, end or fail first.
        - `expires`, in seconds or a timedelta from when it is due, or a time with its zone: no attempt begins after it.
        - `key_until`: `"started"` or `"ended"`, when the key is free again; `if_taken`: `"keep"`, `"replace"` or `"postpone"`.
        - `meta`: names and values about the call, which its function finds in `$ASYNCQ_META`.
        """
        return Bound(self, Options(db, **options))

    def _enqueue(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Job[R]:
        if immediate_mode.get():
            return self._immediate_job(args, kwargs)
        job, warning = self._queue(args, kwargs, options)
        warn(warning)
        return job

    def _queue(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> tuple[Job[R], str | None]:
        """Queues a call. Returns its job, and what to warn about."""
        try:
            number, warning = enqueue(self._new(args, kwargs, options, current_job()), is_decorated=self._is_decorated)
        except NoService:
            raise self.no_service() from None
        return Job(number), warning

    async def _aqueue(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Job[R]:
        job, warning = await aside(options, self._queue, args, kwargs, options)
        warn(warning)
        return job

    def _immediate_job(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job[R]:
        """The job of a call that runs at once, in a test."""
        raise Error(f"`{self.name}` is not decorated in this process, so it cannot run at once", "queue it in a store")

    _is_decorated = False

    def _new(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options, inside: CurrentJob | None
    ) -> NewCall:
        return NewCall(self.service, self.name, encode_arguments(self.name, args, kwargs), options, inside)

    def no_service(self) -> Error:
        """The error for a service that does not exist."""
        return Error(
            f"service `{self.service}` of `{self.name}` does not exist",
            f"`asyncq service add {self.service}` or asyncq.define_service({self.service!r}) makes it",
            66,
        )


class Decorated(Enqueueable[P, R]):
    """What functions and asynchronous functions share."""

    undecorated: Callable[P, Any]
    """The function itself."""

    _is_decorated = True

    def __init__(self, service: str, undecorated: Callable[P, Any]) -> None:
        self.service = service
        self.undecorated = undecorated
        self._policy: dict[str, Any] = {}
        self._bindable: Any = None
        self._own_signature: Signature | None = None
        self._checked: str | None = None
        update_wrapper(cast("Any", self), undecorated)
        decorated.append(self)

    def __repr__(self) -> str:
        return f"<asyncq.{type(self).__name__} {self.name} of {self.service}>"

    @property
    def module(self) -> str:
        """The name of the module in which workers find it."""
        return self.undecorated.__module__

    @property
    def name(self) -> str:
        """Its name on the service: `module.qualname`."""
        return f"{self.undecorated.__module__}.{self.undecorated.__qualname__}"

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        # An attribute of a class stays as it is. A function that was defined in a class is refused.
        if instance is not None and "." in self.undecorated.__qualname__:
            raise self._method()
        return self

    def _new(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options, inside: CurrentJob | None
    ) -> NewCall:
        self.check_call(args, kwargs)
        if kwargs:
            # The database counts only positional arguments.
            args, kwargs = self._signature().placed(args, kwargs)
        return super()._new(args, kwargs, options, inside)

    def check_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuses a call that could not run later. Raises `Error` or `TypeError`."""
        self.check_importable()
        self._check_signature(args, kwargs)
        self.check_types(args, kwargs)

    def check_types(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuses arguments with types that differ from their annotations. Raises `TypeError`."""
        if "takes" in self._policy:
            return  # the store checks them
        try:
            self._signature().check(args, kwargs)
        except TypeError as error:
            raise TypeError(f"{self.undecorated.__qualname__}() {error}") from None

    def policy(self) -> dict[str, Any]:
        """What is registered with it, in the form of `register` of rpc."""
        return {"takes": self._signature().text, **self._policy}

    def _signature(self) -> Signature:
        if self._own_signature is None:
            from ._signature import Signature

            self._own_signature = Signature(cast("FunctionType", self.undecorated))
        return self._own_signature

    def _immediate_job(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job[R]:
        record = Record(self, args, kwargs)
        try:
            with record:
                value = record.returns(run_now(self.undecorated, record.args, record.kwargs))
        except Exception as error:
            failure = {"kind": "error", "message": describe(error), "type": class_name(type(error))}
            return Job(0, {"state": "error", "result": None, "error": failure})
        return Job(0, {"state": "completed", "result": value, "error": None})

    def __reduce__(self) -> str:
        return self.undecorated.__qualname__

    def _run_as_program(self, job: CurrentJob, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a call in the program of a function. `asyncq` runs and records it."""
        self.check_importable()
        if ensure(chosen(), self.service, self.name) is None:
            raise self.no_service()
        return run_by_program(self, job, args, kwargs)

    def _warn(self) -> None:
        if settings.missing_service == "error":
            raise self.no_service()
        warn(f"service `{self.service}` does not exist, so `{self.name}` runs at once", MissingServiceWarning)

    def _check_signature(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuses arguments at once with which the function could not begin later."""
        code = self.undecorated.__code__
        if not kwargs and len(args) == code.co_argcount and not code.co_kwonlyargcount:
            return  # fits most calls, and takes a tenth of the time
        if self._bindable is None:
            import inspect

            self._bindable = inspect.signature(self.undecorated, follow_wrapped=False)
        try:
            self._bindable.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.undecorated.__qualname__}(): {error}") from None

    def is_importable(self) -> bool:
        """Whether a worker would find it."""
        try:
            self.check_importable()
        except Error:
            return False
        return True

    def check_importable(self) -> None:
        """Refuses a function that a worker would not find. Raises `Error`."""
        name = self.name
        if self._checked == name:
            return
        module, qualname = self.undecorated.__module__, self.undecorated.__qualname__
        if module == "__main__":
            raise Error(f"`{qualname}` belongs to a script, which workers cannot import", "move it into a module")
        if qualname == "<lambda>":
            raise Error("a lambda has no name by which a worker could find it", "write a function with `def`")
        if "<locals>" in qualname:
            raise Error(
                f"`{qualname}` is defined inside a function, where workers do not find it", "move it to the module's top"
            )
        if "." in qualname:
            raise self._method()
        if not (name.isascii() and name.replace(".", "").isidentifier() and len(name) <= 255):
            raise Error(
                f"`{name}` cannot be the name of a function in the store",
                "its module and name have ASCII letters, digits and `_`, 255 in all",
            )
        found = getattr(sys.modules.get(module), qualname, None)
        if found is not self:
            raise Error(
                f"`{name}` leads to {found!r}, not to this function" if found is not None else f"`{name}` does not exist",
                "a decorated function keeps its name in its module, and other decorators belong below `@asyncq.function`",
            )
        self._checked = name

    def _method(self) -> Error:
        return Error(
            f"`{self.name}` is a method, and workers find only functions of a module",
            "move it out of its class, and pass what it needs as arguments",
        )


class Function(Decorated[P, R]):
    """A decorated function."""

    undecorated: Callable[P, R]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Queues a call; inside a running function, runs it at once and returns its value."""
        if running.get() is not None or immediate_mode.get():
            record = Record(self, args, kwargs)
            with record:
                return cast("R", record.returns(self.undecorated(*record.args, **record.kwargs)))
        job = current_job()
        if job is not None:
            return cast("R", self._run_as_program(job, args, kwargs))
        try:
            _, warning = enqueue(self._new(args, kwargs, NO_OPTIONS, None), is_decorated=True)
        except NoService:
            self._warn()
            return self.undecorated(*args, **kwargs)
        warn(warning)
        return None


class AsyncFunction(Decorated[P, R]):
    """A decorated `async def`. Its call is a coroutine, which queues it, or runs it, when you await it."""

    undecorated: Callable[P, Coroutine[Any, Any, R]]

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Queues a call; inside a running function, runs it at once and returns its value."""
        if running.get() is not None or immediate_mode.get():
            record = Record(self, args, kwargs)
            with record:
                return cast("R", record.returns(await self.undecorated(*record.args, **record.kwargs)))
        try:
            value, warning = await aside(NO_OPTIONS, self._call_aside, args, kwargs)
        except NoService:
            self._warn()
            return await self.undecorated(*args, **kwargs)
        warn(warning)
        return value

    def _call_aside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[R | None, str | None]:
        job = current_job()
        if job is not None:
            return cast("R", self._run_as_program(job, args, kwargs)), None
        _, warning = enqueue(self._new(args, kwargs, NO_OPTIONS, None), is_decorated=True)
        return None, warning


class Bound(Generic[P, R]):
    """A function with options for its calls, as `using` describes them."""

    __slots__ = ("function", "options")

    def __init__(self, function: Enqueueable[P, R], options: Options) -> None:
        self.function = function
        self.options = options

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Queues a call with these options, even inside a running function."""
        return self.function._enqueue(args, kwargs, self.options)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Queues a call with these options, without blocking the event loop."""
        return await self.function._aqueue(args, kwargs, self.options)


class Remote(Enqueueable[..., Any]):
    """A function that is registered on a service. It may be written in any language."""

    def __init__(self, service: str, name: str) -> None:
        self.service = service
        self._name = name

    @property
    def name(self) -> str:
        """Its name on the service."""
        return self._name

    def __repr__(self) -> str:
        return f"<asyncq.Remote {self._name} of {self.service}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Queues a call; inside a running function, runs it at once and returns its value."""
        job = current_job()
        if job is not None:
            return run_by_program(self, job, args, kwargs)
        self._enqueue(args, kwargs, NO_OPTIONS)
        return None


def remote(service: str, name: str) -> Remote:
    """A function that is registered on a service. It may be written in any language."""
    if not isinstance(service, str) or not isinstance(name, str):
        raise TypeError("name a service and a function, as in asyncq.remote('events', 'resize')")
    return Remote(service, name)


def run_by_program(function: Enqueueable[..., Any], job: CurrentJob, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a call at once with `asyncq enqueue`, as a part of `job`. Returns its value."""
    import subprocess
    import tempfile

    encode_arguments(function.name, args, kwargs)
    for name in kwargs:
        if "=" in name or not name:
            raise TypeError(f"`{name}` cannot be the name of a keyword argument of `{function.name}`")
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.NamedTemporaryFile(prefix="asyncq-result-") as result:
        command = [find_binary(), *store_options(), "enqueue", "--result-to", result.name]
        for name, value in kwargs.items():
            command += ["-k", f"{name}={encode(value)}"]
        command += ["--", function.service, function.name, *(encode(value) for value in args)]
        try:
            code = subprocess.run(command, env=job.environ(), stdin=subprocess.DEVNULL).returncode
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            message = f"the arguments of `{function.name}` are too long for a call inside a function"
            raise TypeError(f"{message}; put the data into a file and pass its path") from None
        text = result.read()
    if code == BUSY:
        raise Conflict(f"`{function.name}` of `{function.service}` ended in a conflict")
    if code != 0:
        raise Error(f"`{function.name}` of `{function.service}` failed", "the log of this job says why", code)
    return decode(text) if text else None


def run_now(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a function; an asynchronous one gets its own event loop."""
    if not function.__code__.co_flags & _COROUTINE:
        return function(*args, **kwargs)
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, function(*args, **kwargs)).result()


class RawJson(str):
    """JSON text that is written as it is."""


class Record:
    """A call that runs at once, and its record."""

    __slots__ = ("_began", "_depth", "_depth_before", "_nested", "_parent_before", "args", "kwargs")

    def __init__(self, function: Decorated[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begins the call. Raises `TypeError` for arguments that cannot be queued, and `Error` when it is nested too deep."""
        self._depth = depth.get() + 1
        if self._depth > MAX_NESTING:
            raise Error(f"calls inside calls are at most {MAX_NESTING} deep", "queue this one with `.enqueue()`")
        texts = encode_arguments(function.name, args, kwargs)
        function.check_types(args, kwargs)
        self.args, self.kwargs = args, kwargs
        if immediate_mode.get():
            self.args, self.kwargs = tuple(decode(texts[0])), decode(texts[1])
        self._nested: NestedCall | None = None
        job = running.get()
        if job is None:
            return
        if job.recorded == MAX_RECORDED:
            job.unrecorded += 1
            return
        job.recorded += 1
        members = {"service": function.service, "function": function.name, "depth": self._depth}
        self._nested = NestedCall({**members, "args": RawJson(texts[0]), "kwargs": RawJson(texts[1])})
        (parent.get() or job).nested.append(self._nested)

    def __enter__(self) -> None:
        self._depth_before = depth.set(self._depth)
        self._parent_before = parent.set(self._nested)
        self._began = time.monotonic()

    def returns(self, value: Any) -> Any:
        """The value that the caller gets. A JSON value is recorded; in immediate mode, no other value is allowed."""
        immediate = immediate_mode.get()
        if self._nested is None and not immediate:
            return value
        try:
            text = encode(value)
        except NotJson as refusal:
            if immediate:
                raise TypeError(f"the value of the function {refusal}") from None
            return value
        if self._nested is not None:
            self._nested.members["value"] = RawJson(text)
        return decode(text) if immediate else value

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        depth.reset(self._depth_before)
        parent.reset(self._parent_before)
        if self._nested is not None:
            members = self._nested.members
            members["milliseconds"] = round((time.monotonic() - self._began) * 1000)
            if error is not None:
                ending = "conflict" if is_conflict(error) else "error"
                members["error"] = {"kind": ending, "message": describe(error), "type": class_name(type(error))}


def describe(error: BaseException) -> str:
    """An exception in one line or more, like the end of a traceback."""
    from traceback import format_exception_only

    return "".join(format_exception_only(type(error), error)).strip()


async def aside(options: Options, function: Callable[..., T], *args: Any) -> T:
    """Calls a function in another thread, so that the event loop goes on. If it uses a connection, it is called here, because
    connections often belong to the thread that has opened them."""
    if options.connection is not None or connection.get() is not None:
        return function(*args)
    import asyncio

    return await asyncio.to_thread(function, *args)


def warn(message: str | None, kind: type[Warning] = RuntimeWarning) -> None:
    """Warns, and names the line outside of this package that made the call."""
    if message is None:
        return
    here, level = os.path.dirname(__file__), 1
    frame = sys._getframe()
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) == here:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)
