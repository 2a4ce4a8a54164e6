"""The child `asyncq rpc`, through which this process talks to the store. docs/rpc.md describes the messages."""

from __future__ import annotations

import atexit
import json
import os
import threading
from typing import TYPE_CHECKING, Any

from ._config import Chosen, chosen, find_binary, store_options
from ._errors import Error, NoStore, Unanswered
from ._json import decode

if TYPE_CHECKING:
    import subprocess

INVALID, NOT_FOUND, UNREACHABLE, BUSY, DENIED = 65, 66, 69, 75, 77
"""Exit codes of asyncq that clients tell apart."""
_USAGE = 2
_AT_ONCE = 1 << 16


class _Waiter:
    """A request without an answer yet. The thread that waits for it sleeps on `lock`; releasing the lock wakes it."""

    __slots__ = ("answer", "lock")

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = None
        self.lock = threading.Lock()
        self.lock.acquire()

    def wake(self) -> None:
        try:
            self.lock.release()
        except RuntimeError:
            pass  # it is awake already


class _Unsent(Exception):
    """The child was dead before it could have read a request."""


class Child:
    """One `asyncq rpc`, shared by all threads.

    Threads write their requests under a lock, and a thread that waits reads the answers of all: the first one reads until it has
    its own answer, and then wakes another one. So a single thread never waits for a second one, and the requests of many
    threads are in the pipe together and share a commit.
    """

    def __init__(self) -> None:
        import subprocess

        self.binary = find_binary()
        self.number = 0
        self.waiting: dict[int, _Waiter] = {}
        self.dead = False
        self.writing = threading.Lock()
        self.reading = threading.Lock()
        self.rest = b""
        self.reader: int | None = None
        self.writer: int | None = None
        # It has its own session, so that Ctrl-C at a terminal does not reach it before this process has its answers.
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [self.binary, *store_options(), "rpc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
            env={name: value for name, value in os.environ.items() if name not in _OF_A_CALL},
        )
        assert self.process.stdin and self.process.stdout
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()

    def request(self, method: str, params: str) -> dict[str, Any]:
        """The answer to a request with `params` as JSON text. Raises `Unanswered` if the child ends without an answer."""
        me = threading.get_ident()
        if me in (self.reader, self.writer):
            raise Error("a signal handler cannot call while the code that it interrupts waits for asyncq", "call in a thread")
        waiter = _Waiter()
        number = 0
        try:
            with self.writing:
                if self.dead:
                    raise _Unsent
                self.writer = me
                self.number = number = self.number + 1
                self.waiting[number] = waiter
                self._write(b'{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}\n' % (number, method.encode(), params.encode()))
                self.writer = None
            while waiter.answer is None and not self.dead:
                if self.reading.acquire(blocking=False):
                    self._read_for(waiter)
                else:
                    waiter.lock.acquire()
        except BaseException:
            # After Ctrl-C, for example, this thread does not read on.
            self.writer = None
            self.waiting.pop(number, None)
            self._wake_another()
            raise
        if waiter.answer is None:
            raise self.unanswered()
        return waiter.answer

    def _write(self, line: bytes) -> None:
        try:
            _write_all(self.input, line)
        except OSError:
            # Nobody has read all of it.
            self._end()
            raise _Unsent from None
        except BaseException:
            # After a signal, perhaps only a part of the line was written. Nothing may follow that.
            self._end()
            raise

    def _read_for(self, waiter: _Waiter) -> None:
        """Reads the answers of all threads, until this thread has its own."""
        try:
            self.reader = threading.get_ident()
            while waiter.answer is None and not self.dead:
                self._read()
        except BaseException:
            # Bytes that were read, perhaps for others, may be lost.
            self._end()
            raise
        finally:
            self.reader = None
            self.reading.release()
            self._wake_another()

    def _read(self) -> None:
        try:
            data = os.read(self.output, _AT_ONCE)
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            try:
                answer = decode(line)
            except ValueError:
                # A number has more digits than Python reads.
                number = int(json.loads(line, parse_int=str)["id"])
                answer = {"id": number, "error": {"message": "the answer has a number with too many digits"}}
            waiter = self.waiting.pop(answer.get("id"), None)
            if waiter is not None:
                waiter.answer = answer
                waiter.wake()

    def _wake_another(self) -> None:
        """Lets one of the waiting threads read on."""
        for waiter in list(self.waiting.values())[:1]:
            waiter.wake()

    def _end(self) -> None:
        self.dead = True
        for waiter in list(self.waiting.values()):
            waiter.wake()

    def unanswered(self) -> Error:
        """The error that says how the child ended."""
        self.close()
        code = self.process.wait()
        if code == _USAGE:
            return Error(
                f"`{self.binary}` has no command `rpc`: it is too old for this package",
                "install a newer one, or set $ASYNCQ_BIN to its path",
                UNREACHABLE,
            )
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return Unanswered(f"`asyncq rpc` {how} before it answered", "give the call a key to repeat it safely", 74)

    def close(self) -> None:
        """Lets the child answer what it has read, and then end."""
        assert self.process.stdin and self.process.stdout
        with self.writing:
            self.dead = True
            self.process.stdin.close()
        with self.reading:
            if not self.process.stdout.closed:
                # The child does not end before somebody has read its answers.
                while os.read(self.output, _AT_ONCE):
                    pass
                self.process.stdout.close()
        self.process.wait()

    def forget(self) -> None:
        """In a forked process: closes what belongs to the parent. The `asyncq rpc` stays the parent's child."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()
        self.process.returncode = 0  # so that nobody here waits for a process of the parent


_OF_A_CALL = ("ASYNCQ_JOB", "ASYNCQ_ATTEMPT", "ASYNCQ_TOKEN", "ASYNCQ_WORKER_TOKEN", "ASYNCQ_WORKER")
"""Variables of one call or worker: the child belongs to none, and outlives calls."""

_children: dict[Chosen, Child] = {}
"""The children of this process, by the store and the program that were chosen."""
_starting = threading.Lock()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _current(of: Chosen) -> Child:
    """The child for a store."""
    child = _children.get(of)
    if child is not None and not child.dead:
        return child
    with _starting:
        child = _children.get(of)
        if child is None or child.dead:
            # Children for other stores end, unless somebody waits for them.
            for other, idle in list(_children.items()):
                if not idle.waiting:
                    del _children[other]
                    idle.close()
            child = _children[of] = Child()
        return child


def close_all() -> None:
    """Lets all children end, as at the end of this process."""
    while _children:
        _children.popitem()[1].close()


def _forget_all() -> None:
    """Forgets all children in a forked process, because they belong to the parent."""
    for child in _children.values():
        child.forget()
    _children.clear()
    _starting.release()


# If another thread forked while a child is started, both processes would keep the pipes of that child open.
os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_forget_all)
atexit.register(close_all)


def request(method: str, params: str, *, repeat: bool = False, of: Chosen | None = None) -> Any:
    """Sends a request to the store `of`, or to the current one. `repeat` allows sending it again if the child ends without an answer.

    Raises `Error` if asyncq refuses the request.
    """
    failure: Error | None = None
    for _ in range(3):
        child = _current(of or chosen())
        try:
            answer = child.request(method, params)
        except _Unsent:
            failure = child.unanswered()
        except Unanswered as error:
            failure = error
            if not repeat:
                break
        else:
            if "error" in answer:
                raise error_of(answer["error"])
            return answer["result"]
    assert failure is not None
    raise failure


def is_time_over(error: Error) -> bool:
    """Whether the time for a wait is over, and not that for a locked store."""
    return error.exit_code == BUSY and " is locked by " not in str(error)


def error_of(error: dict[str, Any]) -> Error:
    """The exception for an error in an answer of asyncq."""
    data = error.get("data") or {}
    message, hint, code = error["message"], data.get("hint"), data.get("exit_code", 1)
    if code == UNREACHABLE:
        return NoStore(message, hint, code)
    if code == BUSY and f"by process {os.getpid()} " in message:
        hint = "this very process holds it: pass that connection, as in `f.using(db).enqueue(...)`"
    return Error(message, hint, code)
