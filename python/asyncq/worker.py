"""A worker that has all decorated functions: `python -m asyncq.worker [--threads N] [MODULE...]`.

asyncq starts it where a function needs it. It imports the modules of functions when they are called, and MODULE at once.
"""

from __future__ import annotations

import json
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

from asyncq._context import CurrentJob, running
from asyncq._errors import Cancelled
from asyncq._runner import CallRunner, hello, message

_PIPE_BYTES = 1 << 20
_REST = 0.002
"""How long the thread that reads the output of calls rests after it has read some, in seconds: calls that print a line each
are not slowed down by a second thread, as what they print is read when they end."""


class Channel:
    """The socket to asyncq. Lines are sent whole, and in order."""

    def __init__(self) -> None:
        self.socket = socket.socket(fileno=int(os.environ.pop("ASYNCQ_WORKER")))
        # What functions start must not write there.
        self.socket.set_inheritable(False)
        self.lock = threading.RLock()
        self.unsent: list[bytes] = []
        self.rest = b""

    def send(self, data: bytes) -> None:
        """Sends a line at once, after all that were to be sent later."""
        with self.lock:
            self.unsent.append(data)
            self.flush()

    def flush(self) -> None:
        """Sends what was to be sent later."""
        with self.lock:
            if self.unsent:
                data = b"".join(self.unsent)
                self.unsent.clear()
                self.socket.sendall(data)

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Sends a notification."""
        self.send(message(method, params))

    def receive(self) -> list[dict[str, Any]] | None:
        """The next messages, waited for; None at the end."""
        while True:
            data = self.socket.recv(1 << 18)
            if not data:
                return None
            *lines, self.rest = (self.rest + data).split(b"\n")
            if lines:
                messages: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
                return messages


class Stream:
    """Descriptor 1 or 2, which is a pipe of this process now. What anybody writes into it is sent as output of a call."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.read_end, write_end = os.pipe()
        self.before = os.dup(descriptor)
        os.set_blocking(self.read_end, False)
        try:
            import fcntl

            fcntl.fcntl(self.read_end, 1031, _PIPE_BYTES)  # F_SETPIPE_SZ
        except OSError:
            pass  # a smaller one does as well
        os.dup2(write_end, descriptor)
        os.close(write_end)
        self.cut = b""

    def take(self, *, whole: bool) -> str:
        """What was written since the last time. A character that is cut stays for the next time, unless this is `whole`."""
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
    """Where the last whole character of UTF-8 text ends."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return len(data)
        if byte >= 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) if back >= needs else len(data) - back
    return len(data)


class Output:
    """What calls print, and what programs print that they start."""

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
        """Sends all that was printed until now, as output of the job."""
        if self.poll.poll(0) or self.is_cut:
            with self.lock:
                self._send(whole=True)
                self.is_cut = False

    def _send(self, *, whole: bool) -> None:
        for stream in self.streams:
            text = stream.take(whole=whole)
            if text:
                self.tell(self.job, stream.name, text)
            if stream.cut:
                self.is_cut = True

    def tell(self, job: int | None, stream: str, text: str) -> None:
        """Sends output of a job. What belongs to none goes where this worker's own output goes."""
        if job is None:
            of = self.streams[0] if stream == "out" else self.streams[1]
            os.write(of.before, text.encode(errors="replace"))
            return
        for at in range(0, len(text), 256 * 1024):
            self.channel.notify("output", {"job": job, "stream": stream, "text": text[at : at + 256 * 1024]})

    def _follow(self) -> None:
        """Sends output while calls run."""
        poll = select.poll()
        for stream in self.streams:
            poll.register(stream.read_end, select.POLLIN)
        while True:
            poll.poll()
            with self.lock:
                self._send(whole=False)
            time.sleep(_REST)


class Printed:
    """`sys.stdout` or `sys.stderr` where several calls run at once: what a call prints goes to its own log."""

    def __init__(self, output: Output, name: str, otherwise: Any) -> None:
        self._output, self._name, self._otherwise = output, name, otherwise

    def write(self, text: str) -> int:
        call = running.get()
        if call is None:
            return int(self._otherwise.write(text))
        if text:
            self._output.tell(call.id, self._name, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._otherwise, name)


class Server:
    """Receives calls until asyncq closes the channel, or SIGTERM comes. It answers all that it has read before it ends."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.output = Output(channel)
        self.is_waiting = False
        self.is_leaving = False
        signal.signal(signal.SIGTERM, self.terminate)

    def terminate(self, signal_number: int, frame: Any) -> None:
        """Ends this worker, as soon as it has answered what it has read."""
        self.is_leaving = True
        if self.is_waiting:
            raise Leave

    def serve(self) -> None:
        """Receives calls and answers them."""
        while not self.is_leaving:
            try:
                self.is_waiting = True
                messages = self.channel.receive()
                self.is_waiting = False
            except Leave:
                break
            if messages is None:
                break
            self.handle(messages)

    def handle(self, messages: list[dict[str, Any]]) -> None:
        """Does what messages ask for."""
        raise NotImplementedError


class Leave(BaseException):
    """SIGTERM came while nothing was to be done."""


class OneAtATime(Server):
    """Calls in the main thread, one after another, in the order in which asyncq sends them.

    The answers of quick calls are sent together. A second thread sees to it that none waits for long behind a slow call.
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
            pass  # the function has closed it
        self.output.end()
        return answer

    def _hurry(self) -> None:
        """While many calls are to be run, sends answers that wait."""
        while True:
            self.begins.acquire()
            while self.is_busy:
                time.sleep(_REST)
                try:
                    self.channel.flush()
                except OSError:
                    return  # the main thread notices it, too


class Environment:
    """The running call in the environment, for `asyncq` in programs that the function starts. It stays there after the call:
    to what outlives the call, the store says that it is over."""

    def __init__(self) -> None:
        self.attempt: int | None = None
        self.principal: str | None = None
        # The dictionary of bytes inside `os.environ`: with ASCII texts, half of the time that an assignment there takes.
        self.inside: dict[bytes, bytes] = getattr(os.environ, "_data", {})

    def enter(self, job: CurrentJob) -> None:
        """From now on, this call runs."""
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
    """Several calls at once, each in a thread of its own."""

    def __init__(self, channel: Channel, modules: list[str], threads: int) -> None:
        import queue

        super().__init__(channel)
        self.modules = modules
        self.calls: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self.running: dict[int, tuple[CurrentJob, int, CallRunner]] = {}
        self.lock = threading.Lock()
        sys.stdout = Printed(self.output, "out", sys.stdout)
        sys.stderr = Printed(self.output, "err", sys.stderr)
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
            with self.lock:
                self.running[job.id] = (job, threading.get_ident(), runner)
            answer = None
            # `Cancelled` may come at any moment until the call is no longer listed.
            while True:
                try:
                    answer = answer or runner.run(number, call, job)
                    with self.lock:
                        self.running.pop(job.id, None)
                    break
                except Cancelled as error:
                    answer = answer or runner.failure(number, job, error)
            self.channel.send(answer)
        runner.close()

    def cancel(self, id: int) -> None:
        """Raises `Cancelled` in the thread of a call. One that waits inside C code sees it when that returns."""
        import ctypes

        with self.lock:
            job, thread, runner = self.running.get(id, (None, 0, None))
            if job is None or runner is None or job.cancelled:
                return
            job.cancelled = True
            if not runner.cancel_task():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Cancelled))


def main(words: list[str]) -> int:
    """Serves asyncq until it closes the channel."""
    import argparse
    import importlib

    parser = argparse.ArgumentParser(prog="python -m asyncq.worker", description="A worker that asyncq starts.")
    parser.add_argument("--threads", type=int, default=1, help="how many calls run at once [default: 1]")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="modules to import before the first call; their functions need no module in their names")
    options = parser.parse_args(words)
    if options.threads < 1:
        parser.error("--threads is a number from 1 on")
    if "ASYNCQ_WORKER" not in os.environ:
        parser.error("asyncq starts this program by itself: decorate functions, call them, and run `asyncq process`")
    channel = Channel()
    for module in options.modules:
        importlib.import_module(module)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        server: Server
        if options.threads == 1:
            server = OneAtATime(channel, options.modules)
        else:
            server = Several(channel, options.modules, options.threads)
        server.serve()
    except (BrokenPipeError, ConnectionError):
        pass  # the processor is gone
    return 0


sys.exit(main(sys.argv[1:]))
