"""Draining into this very process."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from ._config import find_binary, settings, store_options
from ._context import ENVIRONMENT, CurrentJob, is_async
from ._errors import Error
from ._runner import CallRunner, hello, message, pieces

if TYPE_CHECKING:
    import socket
    from datetime import timedelta

_running = threading.Lock()


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
        words = list(services)
        if max_jobs is not None:
            words += ["--max-jobs", str(max_jobs)]
        if max_time is not None:
            seconds = float(max_time) if isinstance(max_time, (int, float)) else max_time.total_seconds()
            words += ["--max-time", f"{max(1, round(seconds * 1000))}ms"]
        if wait_retries:
            words.append("--wait-retries")
        _drain(words)
    finally:
        _running.release()


def _drain(words: list[str]) -> None:
    import socket
    import subprocess

    from ._function import decorated

    ours, theirs = socket.socketpair()
    names = sorted({function.name for function in decorated})
    sys.stdout.flush()
    sys.stderr.flush()
    with ours:
        with theirs:
            command = [find_binary(), *store_options(), "process", *words, "--worker-socket", str(theirs.fileno())]
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
        host = Host(ours, names)
        try:
            host.serve()
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
        lines = [line for line in complaints.getvalue().splitlines() if line.startswith("error: ")]
        reason = lines[-1].removeprefix("error: ") if lines else f"it ended with exit code {code}"
        raise Error(f"`asyncq process` could not work: {reason}", None, code)


def _pump(pipe: Any, to: list[Any]) -> None:
    """Passes on what a pipe brings, as text."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while data := os.read(pipe.fileno(), 65536):
        text = decoder.decode(data)
        for stream in to:
            stream.write(text)
            stream.flush()


class Host:
    """This process at the other end of a processor's socket."""

    def __init__(self, socket: socket.socket, functions: list[str]) -> None:
        self.socket = socket
        self.functions = functions
        self.runner = CallRunner()
        self.lock = threading.Lock()

    def serve(self) -> None:
        """Runs calls until the processor has none left."""
        # Whatever ran here before has been waited for.
        self._send(hello(1, functions=self.functions, cancel=True, idle=True, echo=False))
        rest = b""
        try:
            while data := self.socket.recv(1 << 18):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    if told.get("method") == "call":
                        self._run(told["id"], told["params"])
        except ConnectionError:
            pass  # the processor is gone: its exit code says why
        finally:
            self.runner.close()

    def _send(self, data: bytes) -> None:
        with self.lock:
            self.socket.sendall(data)

    def _notify(self, method: str, params: dict[str, Any]) -> None:
        self._send(message(method, params))

    def _run(self, number: int, call: dict[str, Any]) -> None:
        job = CurrentJob(call, self._notify)
        before, folder = (sys.stdout, sys.stderr), os.getcwd()
        out, err = Tee("out", before[0]), Tee("err", before[1])
        variables = job.variables()
        replaced = {name: os.environ.get(name) for name in ENVIRONMENT}
        sys.stdout, sys.stderr = out, err
        try:
            for name in ENVIRONMENT:
                _set(name, variables.get(name))
            if job.site:
                os.chdir(job.site)
            answer = self.runner.run(number, call, job)
        except OSError as error:
            answer = self.runner.failure(number, job, error)
        finally:
            sys.stdout, sys.stderr = before
            os.chdir(folder)
            for name, value in replaced.items():
                _set(name, value)
        for tee in (out, err):
            for piece in pieces(tee.text()):
                self._notify("output", {"job": job.id, "stream": tee.name, "text": piece})
        self._send(answer)


class Tee:
    """A stream that keeps what is printed there, and passes it on."""

    def __init__(self, name: str, to: Any) -> None:
        self.name = name
        self._to = to
        self._parts: list[str] = []

    def write(self, text: str) -> int:
        self._parts.append(text)
        return int(self._to.write(text) or len(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def text(self) -> str:
        """All that was printed."""
        return "".join(self._parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)




def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
