"""Drains queues and runs the calls in this process."""

from __future__ import annotations

import io
import os
import queue
import signal
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ._calls import listed, span_text
from ._channel import Channel, Printed
from ._config import find_binary, store_options
from ._context import ENVIRONMENT, CurrentJob, is_async, replace_environment
from ._errors import Cancelled, Error
from ._runner import CallRunner, CannotRun, hello

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping

_running = threading.Lock()
_NO_TIME = timedelta()
_BETWEEN_SIGNALS = 0.25
"""Seconds between signals to a processor. It counts two that are less than 0.2 apart as one."""
_CANCEL = signal.SIGRTMAX - 1
"""With which a drain ends its call in the main thread, whatever that waits for."""


def process(
    *services: str,
    max_jobs: int | None = None,
    max_time: float | timedelta | str | None = None,
    wait: float | timedelta | str | None = None,
    wait_retries: bool = False,
    grace: float | timedelta | str | None = None,
    except_: Iterable[str] = (),
    one_container: bool = False,
) -> None:
    """Runs the calls that are ready, of these services or of all, and returns when there are none.

    Calls of functions that are decorated in this process run in this thread; what they print goes to `sys.stdout`. Other
    functions run as always. A call that fails does not raise here: its job says so.

    - `services`: names, or patterns such as `"site-*"`; `except_` leaves services out.
    - `max_jobs`: begin at most this many calls.
    - `max_time`: begin no call after this time.
    - `wait`: when nothing is left to do, wait for calls that come due within this time; each call that runs renews it.
    - `wait_retries`: the same as `wait="1m"`.
    - `grace`: after Ctrl-C or SIGTERM, give running calls this time to end; then end them and put them back. 0 ends them at once.
    - `one_container`: assume that the container of a dead processor is gone. Only for a store that one container at a time uses.

    Times are seconds, timedeltas, or texts such as `"50s"`.
    """
    if is_async():
        raise Error("`asyncq.process` cannot run inside a function", "calls that the function makes run at once")
    if wait is not None and wait_retries:
        raise TypeError("give either `wait` or `wait_retries`, not both")
    words = [] if max_jobs is None else ["--max-jobs", str(max_jobs)]
    for option, span in (("max_time", max_time), ("wait", wait), ("grace", grace)):
        if span is not None:
            is_now = option == "grace" and span in (0, _NO_TIME)
            words += [f"--{option.replace('_', '-')}", "0" if is_now else span_text(option, span)]
    for service in listed("except_", except_):
        words += ["--except", service]
    words += [f"--{name}" for name, is_on in (("wait-retries", wait_retries), ("one-container", one_container)) if is_on]
    if not _running.acquire(blocking=False):
        raise Error("`asyncq.process` runs in this process already", "call it again when it has returned")
    try:
        _drain(services, words)
    finally:
        _running.release()


def follow(id: int) -> None:
    """Prints what a job prints until it has ended. Raises `Error` if it cannot be followed."""
    import subprocess

    command = [find_binary(), *store_options(), "job", "log", "-f", str(id)]
    sys.stdout.flush()
    sys.stderr.flush()
    follower = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        complaints = _pass_on(follower)
    except BaseException:
        # The job goes on without this process.
        follower.terminate()
        follower.wait()
        raise
    if follower.returncode not in (0, 1):
        raise _complaint("`asyncq job log -f` could not work", complaints, follower.returncode)


def _pass_on(program: subprocess.Popen[bytes]) -> str:
    """Prints what a program prints until it has ended. Returns what it wrote to stderr."""
    complaints = io.StringIO()
    pumps = _pumps(program, complaints)
    for pump in pumps:
        pump.join()
    program.wait()
    _close(program)
    return complaints.getvalue()


def _pumps(program: subprocess.Popen[bytes], complaints: io.StringIO) -> list[threading.Thread]:
    """Threads that print what a program prints."""
    pumps = [
        threading.Thread(target=_pump, args=(program.stdout, [sys.stdout]), daemon=True),
        threading.Thread(target=_pump, args=(program.stderr, [sys.stderr, complaints]), daemon=True),
    ]
    for pump in pumps:
        pump.start()
    return pumps


def _close(program: subprocess.Popen[bytes]) -> None:
    for pipe in (program.stdout, program.stderr):
        assert pipe
        pipe.close()


def _complaint(what: str, complaints: str, code: int) -> Error:
    """The error for a program that has ended with this code."""
    said = dict(line.split(": ", 1) for line in complaints.splitlines() if line.startswith(("error: ", "hint: ")))
    reason = said.get("error", f"it ended with exit code {code}")
    return Error(f"{what}: {reason}", said.get("hint"), code)


def _drain(services: tuple[str, ...], words: list[str]) -> None:
    import socket
    import subprocess

    from ._function import decorated

    ours, theirs = socket.socketpair()
    names = sorted({function.name for function in decorated if function.is_importable()})
    sys.stdout.flush()
    sys.stderr.flush()
    with ours:
        with theirs:
            options = ["--worker-socket", str(theirs.fileno()), *words]
            command = [find_binary(), *store_options(), "process", *options, "--", *services]
            processor = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        complaints = io.StringIO()
        pumps = _pumps(processor, complaints)
        try:
            Host(Channel(ours), processor).serve(names)
        except BaseException:
            processor.terminate()
            ours.close()
            raise
        finally:
            code = processor.wait()
            for pump in pumps:
                pump.join()
            _close(processor)
    if code not in (0, 1):
        raise _complaint("`asyncq process` could not work", complaints.getvalue(), code)


def _pump(pipe: Any, to: list[Any]) -> None:
    """Passes on the text from a pipe."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while data := os.read(pipe.fileno(), 65536):
        text = decoder.decode(data)
        for stream in to:
            try:
                stream.write(text)
                stream.flush()
            except Exception:
                pass  # a pipe that nobody empties would stop the processor


class Host:
    """This process, at the other end of a processor's socket. Calls run in this thread, and another thread reads."""

    def __init__(self, channel: Channel, processor: subprocess.Popen[bytes]) -> None:
        self.channel = channel
        self.processor = processor
        self.runner = CallRunner(is_host=True)
        self.calls: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self.thread = threading.get_ident()
        self.is_main = threading.current_thread() is threading.main_thread()
        self.job: CurrentJob | None = None
        self.asked = threading.Event()
        """asyncq has asked for the end of the call that runs."""
        self.interrupt: KeyboardInterrupt | None = None

    def serve(self, functions: list[str]) -> None:
        """Runs calls of these functions until the processor has none left. Raises `KeyboardInterrupt` after Ctrl-C."""
        # It is idle, because every earlier drain of this process has waited for its calls.
        try:
            self.channel.send(hello(1, functions=functions, cancel=True, idle=True, echo=False))
        except ConnectionError:
            return  # the processor is gone: its exit code says why
        reader = threading.Thread(target=self._read, name="asyncq process", daemon=True)
        reader.start()
        before = signal.signal(_CANCEL, lambda *_: self.runner.cancel()) if self.is_main else None
        try:
            while (work := self.calls.get()) is not None:
                self._run(*work)
        finally:
            if self.is_main:
                signal.signal(_CANCEL, before)
            self.runner.close()
        reader.join()
        if self.interrupt is not None:
            raise self.interrupt

    def _read(self) -> None:
        try:
            while (messages := self.channel.receive()) is not None:
                for told in messages:
                    if told.get("method") == "call":
                        self.calls.put((told["id"], told["params"]))
                    elif told.get("method") == "cancel":
                        self._cancel(told["params"]["job"])
        except ConnectionError:
            pass  # the processor is gone: its exit code says why
        finally:
            self.calls.put(None)

    def _cancel(self, id: int) -> None:
        """Raises `Cancelled` in the call. If this drain is in the main thread, that also interrupts a wait."""
        # Not while a line is being sent, because that would cut it off.
        with self.channel.lock:
            job = self.job
            if job is None or job.id != id or job.cancelled:
                return
            job.cancelled = True
            self.asked.set()
            if self.interrupt is not None or self.runner.cancel_task():
                return
            if self.is_main:
                signal.pthread_kill(self.thread, _CANCEL)
            else:
                import ctypes

                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(Cancelled))

    def _stop(self, interrupt: KeyboardInterrupt) -> None:
        """After Ctrl-C in a call: has the processor stop, and waits until it asks for the end of this call. So the call is put
        back, and does not count as a failure."""
        self.interrupt = interrupt
        # The processor got the first signal from the terminal, or gets it now. Two signals at once count as one.
        while not self.asked.wait(_BETWEEN_SIGNALS) and self.processor.poll() is None:
            self.processor.send_signal(signal.SIGTERM)

    def _run(self, number: int, call: dict[str, Any]) -> None:
        job = CurrentJob(call, self.channel.notify)
        printed = [
            Printed(self.channel, name, stream, is_shown=True) for name, stream in (("out", sys.stdout), ("err", sys.stderr))
        ]
        self.asked.clear()
        self.job = job
        try:
            with _Inside(job, printed):
                answer = self.runner.run(number, call, job)
        except KeyboardInterrupt as error:
            self._stop(error)
            answer = self.runner.failure(number, job, error)
        except OSError as error:
            reason = CannotRun(f"its folder `{job.site}` cannot be entered: {error.strerror}")
            answer = self.runner.failure(number, job, reason)
        except Cancelled as error:
            answer = self.runner.failure(number, job, error)
        with self.channel.lock:
            self.job = None
        for stream in printed:
            stream.send(job.id)
        self.channel.send(answer)


class _Inside:
    """Gives this whole process the call's streams, folder and environment until the call ends."""

    def __init__(self, job: CurrentJob, printed: list[Printed]) -> None:
        self._job, self._printed = job, printed

    def __enter__(self) -> None:
        self._streams = sys.stdout, sys.stderr
        self._folder = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._job.site:
                os.chdir(self._job.site)
        except BaseException:
            os.close(self._folder)
            raise
        self._variables = {name: os.environ.get(name) for name in ENVIRONMENT}
        replace_environment(self._variables)
        _set(self._job.variables())
        sys.stdout, sys.stderr = self._printed

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._streams
        _set(self._variables)
        replace_environment(None)
        # By descriptor, because the folder may have been moved or removed.
        os.fchdir(self._folder)
        os.close(self._folder)


def _set(variables: Mapping[str, str | None]) -> None:
    for name in ENVIRONMENT:
        value = variables.get(name)
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
