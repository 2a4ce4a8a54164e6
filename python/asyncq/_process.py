"""Draining into this very process."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from ._config import find_binary, settings, store_options
from ._context import ENVIRONMENT, CurrentJob, is_async
from ._errors import Error
from ._runner import CallRunner, hello, message, pieces

if TYPE_CHECKING:
    import socket
    import subprocess
    from datetime import timedelta

_running = threading.Lock()
_BETWEEN_SIGNALS = 0.25
"""How far signals to a processor have to be apart to count as two, in seconds, and a little more."""


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
    names = sorted({function.name for function in decorated if function.is_importable()})
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
        host = Host(ours, names, processor)
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

    def __init__(self, socket: socket.socket, functions: list[str], processor: subprocess.Popen[bytes]) -> None:
        self.socket = socket
        self.functions = functions
        self.processor = processor
        self.runner = CallRunner(is_host=True)
        self.lock = threading.Lock()
        self.rest = b""
        self.interrupt: KeyboardInterrupt | None = None

    def serve(self) -> None:
        """Runs calls until the processor has none left."""
        # Whatever ran here before has been waited for.
        self._send(hello(1, functions=self.functions, cancel=True, idle=True, echo=False))
        try:
            while (messages := self._receive()) is not None:
                for told in messages:
                    if told.get("method") == "call":
                        self._run(told["id"], told["params"])
        except ConnectionError:
            pass  # the processor is gone: its exit code says why
        finally:
            self.runner.close()
        if self.interrupt is not None:
            raise self.interrupt

    def _receive(self) -> list[dict[str, Any]] | None:
        data = self.socket.recv(1 << 18)
        if not data:
            return None
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _stop(self, job: CurrentJob, interrupt: KeyboardInterrupt) -> None:
        """After Ctrl-C in a call: has the processor stop, and waits until it asks for the end of this call. So the call is put
        back, and counts as no failure."""
        import select

        self.interrupt = interrupt
        while True:
            # It has got the first signal from the terminal, or gets it now; two that come at once count as one.
            time.sleep(_BETWEEN_SIGNALS)
            self.processor.send_signal(signal.SIGTERM)
            while select.select([self.socket], [], [], _BETWEEN_SIGNALS)[0]:
                messages = self._receive()
                if messages is None:
                    return
                if any(told.get("method") == "cancel" and told["params"]["job"] == job.id for told in messages):
                    return

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
        except KeyboardInterrupt as error:
            self._stop(job, error)
            answer = self.runner.failure(number, job, error)
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
