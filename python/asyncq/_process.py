"""Draining into this very process."""

from __future__ import annotations

import io
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from ._channel import Channel, Printed
from ._config import find_binary, store_options
from ._context import ENVIRONMENT, CurrentJob, is_async, replace_environment
from ._errors import Cancelled, Error
from ._runner import CallRunner, CannotRun, hello

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from datetime import timedelta

_running = threading.Lock()
_BETWEEN_SIGNALS = 0.25
"""Seconds between signals to a processor. It counts two that are less than 0.2 apart as one."""
_CANCEL = signal.SIGRTMAX - 1
"""With which a drain ends its call in the main thread, whatever that waits for."""


def process(
    *services: str,
    max_jobs: int | None = None,
    max_time: float | timedelta | None = None,
    wait_retries: bool = False,
) -> None:
    """Runs the calls that are ready, of these services or of all, and returns when there are none.

    Calls of functions that are decorated in this process run in this thread; what they print goes to `sys.stdout`. Other
    functions run as always. A call that fails does not raise here: its job says so.

    - `max_jobs`: begin at most this many calls.
    - `max_time`: begin no call after this many seconds.
    - `wait_retries`: stay until calls that are tried again have ended.
    """
    if is_async():
        raise Error("`asyncq.process` cannot run inside a function", "calls that the function makes run at once")
    if not _running.acquire(blocking=False):
        raise Error("`asyncq.process` runs in this process already", "call it again when it has returned")
    try:
        words = []
        if max_jobs is not None:
            words += ["--max-jobs", str(max_jobs)]
        if max_time is not None:
            seconds = float(max_time) if isinstance(max_time, (int, float)) else max_time.total_seconds()
            words += ["--max-time", f"{max(1, round(seconds * 1000))}ms"]
        if wait_retries:
            words.append("--wait-retries")
        _drain(services, words)
    finally:
        _running.release()


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
        assert processor.stdout and processor.stderr
        complaints = io.StringIO()
        pumps = [
            threading.Thread(target=_pump, args=(processor.stdout, [sys.stdout]), daemon=True),
            threading.Thread(target=_pump, args=(processor.stderr, [sys.stderr, complaints]), daemon=True),
        ]
        for pump in pumps:
            pump.start()
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
            for pipe in (processor.stdout, processor.stderr):
                pipe.close()
    if code not in (0, 1):
        said = dict(line.split(": ", 1) for line in complaints.getvalue().splitlines() if line.startswith(("error: ", "hint: ")))
        reason = said.get("error", f"it ended with exit code {code}")
        raise Error(f"`asyncq process` could not work: {reason}", said.get("hint"), code)


def _pump(pipe: Any, to: list[Any]) -> None:
    """Passes on what a pipe brings, as text."""
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
    """This process at the other end of a processor's socket: calls run in this thread, and another one reads."""

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
        # Idle, as every earlier drain of this process has waited for its calls.
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
        """Raises `Cancelled` in the call, in whatever it waits for if this drain is in the main thread."""
        # Not while a line is sent, which would be cut off.
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
        # It got the first signal from the terminal, or gets it now. Two that come at once count as one.
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
    """The call's streams, folder and environment, in this whole process until it ends."""

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
        # By descriptor: it may have been moved, or removed.
        os.fchdir(self._folder)
        os.close(self._folder)


def _set(variables: Mapping[str, str | None]) -> None:
    for name in ENVIRONMENT:
        value = variables.get(name)
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
