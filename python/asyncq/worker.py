"""A worker that has all decorated functions: `python -m asyncq.worker [--threads N] [MODULE...]`.

asyncq starts it where a function needs it. It imports the modules of functions when they are called, and MODULE at once.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

if __name__ != "__main__":
    raise ImportError("run it: python -m asyncq.worker")

from asyncq._channel import Channel, Printed
from asyncq._context import CurrentJob
from asyncq._errors import Cancelled
from asyncq._runner import CallRunner, hello

_PIPE_BYTES = 1 << 18
_REST = 0.002
"""How long the thread that reads the output of calls rests after it has read some, in seconds: calls that print a line each
are not slowed down by a second thread, as what they print is read when they end."""


class Stream:
    """Descriptor 1 or 2, now a pipe of this process. Whatever anybody writes into it is sent as output of a call."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.read_end, write_end = os.pipe()
        self.original = os.dup(descriptor)
        os.set_blocking(self.read_end, False)
        try:
            fcntl.fcntl(self.read_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            pass  # a smaller pipe works, too
        os.dup2(write_end, descriptor)
        os.close(write_end)
        self.cut = b""

    def take(self, *, whole: bool) -> str:
        """What was written since the last time. An incomplete character stays for the next time, unless this is `whole`."""
        parts = [self.cut]
        while True:
            try:
                data = os.read(self.read_end, _PIPE_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            parts.append(data)
            if len(data) < _PIPE_BYTES:
                break  # that was all
        data = b"".join(parts)
        self.cut = b""
        if not data:
            return ""
        if not whole:
            end = _end_of_characters(data)
            data, self.cut = data[:end], data[end:]
        return data.decode(errors="replace")


def _end_of_characters(data: bytes) -> int:
    """Where the last complete character of UTF-8 text ends."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return len(data)
        if byte >= 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) if back >= needs else len(data) - back
    return len(data)


class Output:
    """The output of calls, and of programs that they start."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.streams = (Stream("out", 1), Stream("err", 2))
        self.lock = threading.RLock()
        self.job: int | None = None
        """Whose output it is; with several calls at once, nobody's."""
        self.is_cut = False
        self.poll = select.poll()
        for stream in self.streams:
            self.poll.register(stream.read_end, select.POLLIN)
        threading.Thread(target=self._follow, name="asyncq output", daemon=True).start()

    def end(self) -> None:
        """Sends everything that was printed so far as output of the job."""
        with self.lock:  # not before: the other thread may have read what it has not sent yet
            if self.poll.poll(0) or self.is_cut:
                self._send(at_end=True)
                self.is_cut = False

    def _send(self, *, at_end: bool) -> None:
        """Sends what was printed; at the end of a call, together with its answer."""
        for stream in self.streams:
            text = stream.take(whole=at_end)
            if text and self.job is not None:
                self.channel.output(self.job, stream.name, text, later=at_end)
            elif text:
                os.write(stream.original, text.encode(errors="replace"))
            if stream.cut:
                self.is_cut = True

    def _follow(self) -> None:
        """Sends output while calls run."""
        poll = select.poll()
        for stream in self.streams:
            poll.register(stream.read_end, select.POLLIN)
        while True:
            poll.poll()
            with self.lock:
                self._send(at_end=False)
            time.sleep(_REST)


class Server:
    """Receives calls until asyncq closes the channel or SIGTERM comes. It answers all calls that it has read before it ends."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.output = Output(channel)
        self.is_waiting = False
        self.is_leaving = False
        signal.signal(signal.SIGTERM, self.terminate)

    def terminate(self, signal_number: int, frame: Any) -> None:
        """Ends this worker as soon as it has answered all calls that it has read."""
        self.is_leaving = True
        if self.is_waiting:
            raise Leave

    def serve(self) -> None:
        """Receives calls and answers them."""
        while not self.is_leaving:
            try:
                self.is_waiting = not self.channel.rest
                self.channel.wait()
                self.is_waiting = False
                messages = self.channel.receive()
            except Leave:
                break
            if messages is None:
                break
            self.handle(messages)

    def handle(self, messages: list[dict[str, Any]]) -> None:
        """Carries out messages."""
        raise NotImplementedError


class Leave(BaseException):
    """SIGTERM came while there was nothing to do."""


class OneAtATime(Server):
    """Calls in the main thread, one after another, in the order in which asyncq sends them.

    The answers of quick calls are sent together. A second thread keeps them from waiting long behind a slow call.
    """

    def __init__(self, channel: Channel, modules: list[str]) -> None:
        super().__init__(channel)
        self.runner = CallRunner(modules)
        self.job: CurrentJob | None = None
        self.environment = Environment()
        self.is_busy = False
        self.begins = threading.Semaphore(0)
        threading.Thread(target=self._hurry, name="asyncq answers", daemon=True).start()
        channel.send(hello(1, output="counted"))

    def terminate(self, signal_number: int, frame: Any) -> None:
        """Ends the running call; between calls, the worker."""
        if self.job is None:
            super().terminate(signal_number, frame)
        elif not self.job.cancelled:
            self.job.cancelled = True
            # This must not cut off what the thread is sending. `progress` checks by itself whether the call has to end.
            if self.channel.sender != threading.main_thread().ident:
                self.runner.cancel()

    def handle(self, messages: list[dict[str, Any]]) -> None:
        if len(messages) > 1:
            self.is_busy = True
            self.begins.release()
        unsent = self.channel.unsent
        for told in messages:
            if told.get("method") == "call":
                unsent.append(self._answer(told["id"], told["params"]))
        self.is_busy = False
        self.channel.flush()

    def _answer(self, number: int, call: dict[str, Any]) -> bytes:
        job = CurrentJob(call, self.channel.notify)
        self.output.job = job.id
        self.environment.enter(job)
        self.job = job
        answer = self.runner.run(number, call, job)
        self.job = None
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # the function has closed the descriptor
        self.output.end()
        return answer

    def _hurry(self) -> None:
        """Sends waiting answers while there are many calls to run."""
        while True:
            self.begins.acquire()
            while self.is_busy:
                time.sleep(_REST)
                try:
                    self.channel.flush()
                except OSError:
                    return  # the main thread notices that, too


class Environment:
    """Puts the running call into the environment, for `asyncq` in programs that the function starts. It stays there after the
    call: the store tells programs that outlive the call that it is over."""

    def __init__(self) -> None:
        self.attempt = 0
        # Variables that the worker has inherited do not belong to a call.
        self.principal: str | None = os.environ.get("ASYNCQ_PRINCIPAL")
        # The dictionary of bytes inside `os.environ`: with ASCII texts, half of the time that an assignment there takes.
        self.inside: dict[bytes, bytes] = getattr(os.environ, "_data", {})

    def enter(self, job: CurrentJob) -> None:
        """Sets the variables of this call, which begins now."""
        environ = os.environ
        number, token = str(job.id).encode(), job.token.encode()
        os.putenv(b"ASYNCQ_JOB", number)
        os.putenv(b"ASYNCQ_TOKEN", token)
        self.inside[b"ASYNCQ_JOB"], self.inside[b"ASYNCQ_TOKEN"] = number, token
        if job.attempt != self.attempt:
            environ["ASYNCQ_ATTEMPT"] = str(job.attempt)
            self.attempt = job.attempt
        if job.principal != self.principal:
            if job.principal is None:
                environ.pop("ASYNCQ_PRINCIPAL", None)
            else:
                environ["ASYNCQ_PRINCIPAL"] = job.principal
            self.principal = job.principal


class Several(Server):
    """Runs several calls at once, each in its own thread."""

    def __init__(self, channel: Channel, modules: list[str], threads: int) -> None:
        import queue

        super().__init__(channel)
        self.modules = modules
        self.calls: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self.running: dict[int, tuple[CurrentJob, int, CallRunner]] = {}
        self.lock = threading.Lock()
        self.printed = [
            Printed(channel, name, stream, is_shown=False) for name, stream in (("out", sys.stdout), ("err", sys.stderr))
        ]
        sys.stdout, sys.stderr = self.printed
        self.threads = [
            threading.Thread(target=self._work, name=f"asyncq {at + 1}", daemon=True) for at in range(threads)
        ]
        for thread in self.threads:
            thread.start()
        channel.send(hello(threads, cancel=True))

    def serve(self) -> None:
        super().serve()
        for _ in self.threads:
            self.calls.put(None)
        for thread in self.threads:
            thread.join()

    def handle(self, messages: list[dict[str, Any]]) -> None:
        for told in messages:
            method = told.get("method")
            if method == "call":
                self.calls.put((told["id"], told["params"]))
            elif method == "cancel":
                self.cancel(told["params"]["job"])

    def _work(self) -> None:
        runner = CallRunner(self.modules)
        while (work := self.calls.get()) is not None:
            number, call = work
            job = CurrentJob(call, self.channel.notify)
            answer = None
            # As long as the call is listed, `Cancelled` may come at any moment.
            while True:
                try:
                    if answer is None:
                        with self.lock:
                            self.running[job.id] = (job, threading.get_ident(), runner)
                        answer = runner.run(number, call, job)
                        for printed in self.printed:
                            printed.send(job.id)
                    with self.lock:
                        self.running.pop(job.id, None)
                    break
                except Cancelled as error:
                    answer = answer or runner.failure(number, job, error)
            self.channel.send(answer)
        runner.close()

    def cancel(self, id: int) -> None:
        """Raises `Cancelled` in the thread of a call. If the call waits inside C code, this happens when that code returns."""
        import ctypes

        # Not while that thread sends, because that would cut off a line.
        with self.channel.lock, self.lock:
            job, thread, runner = self.running.get(id, (None, 0, None))
            if job is None or runner is None or job.cancelled:
                return
            job.cancelled = True
            if not runner.cancel_task():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Cancelled))


def parser() -> Any:
    """The parser for the command line. Most workers have no arguments, and do not load it."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m asyncq.worker", description="A worker that asyncq starts.")
    parser.add_argument("--threads", type=int, default=1, help="how many calls run at once [default: 1]")
    what = "modules to import before the first call; their functions need no module in their names"
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=what)
    return parser


def main(words: list[str]) -> int:
    """Serves asyncq until it closes the channel."""
    import importlib

    options = parser().parse_args(words) if words else None
    threads, modules = (options.threads, options.modules) if options is not None else (1, [])
    if threads < 1:
        parser().error("--threads is a number from 1 on")
    if "ASYNCQ_WORKER" not in os.environ:
        parser().error("asyncq starts this program by itself: decorate functions, call them, and run `asyncq process`")
    sys.set_int_max_str_digits(0)  # an argument of 1 MiB may be one number
    channel = Channel(socket.socket(fileno=int(os.environ.pop("ASYNCQ_WORKER"))))
    for module in modules:
        importlib.import_module(module)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    try:
        server: Server
        if threads == 1:
            server = OneAtATime(channel, modules)
        else:
            server = Several(channel, modules, threads)
        server.serve()
    except (BrokenPipeError, ConnectionError):
        pass  # the processor is gone
    return 0


sys.exit(main(sys.argv[1:]))
