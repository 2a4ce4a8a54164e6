"""The socket over which asyncq sends calls, and the output that goes over it."""

from __future__ import annotations

import json
import select
import threading
from typing import TYPE_CHECKING, Any

from ._context import running

if TYPE_CHECKING:
    import socket

_AT_ONCE = 256 * 1024
"""How much is read at once, and how long a piece of output is at most, in bytes and in characters."""


def notification(method: str, params: dict[str, Any]) -> bytes:
    """A notification, as a line."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n"


class Channel:
    """One end of the socket. It sends whole lines in order. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        # Programs that functions start must not write there.
        end.set_inheritable(False)
        self.lock = threading.RLock()
        self.unsent: list[bytes] = []
        self.sender: int | None = None
        """The thread that sends at this moment."""
        self.rest = b""
        """The beginning of a line whose end has not come."""
        self._readable = select.poll()
        self._readable.register(end, select.POLLIN)

    def send(self, line: bytes) -> None:
        """Sends a line at once, after all lines that were put off."""
        with self.lock:
            self.unsent.append(line)
            self.flush()

    def flush(self) -> None:
        """Sends the lines in `unsent`. The main thread of a worker may append to it meanwhile, without the lock."""
        with self.lock:
            count = len(self.unsent)
            if not count:
                return
            self.sender = threading.get_ident()
            try:
                data = b"".join(self.unsent[:count])
                del self.unsent[:count]
                self.socket.sendall(data)
            finally:
                self.sender = None

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Sends a notification."""
        self.send(notification(method, params))

    def output(self, job: int, stream: str, text: str, *, later: bool = False) -> None:
        """Sends output of a job, or `later`, with the next line."""
        for at in range(0, len(text), _AT_ONCE):
            params = {"job": job, "stream": stream, "text": text[at : at + _AT_ONCE]}
            if later:
                self.unsent.append(notification("output", params))
            else:
                self.notify("output", params)

    def wait(self) -> None:
        """Waits until there is something to read, and reads nothing."""
        self._readable.poll()

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that are there, or that come next. There may be none; None means the end."""
        data = self.socket.recv(_AT_ONCE)
        if not data:
            return None
        *lines, self.rest = (self.rest + data).split(b"\n")
        messages: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
        return messages


class Printed:
    """Replaces `sys.stdout` or `sys.stderr`. Sends what a call prints as its output, in whole lines if possible."""

    def __init__(self, channel: Channel, name: str, stream: Any, *, is_shown: bool) -> None:
        """`stream` gets what is printed outside of calls and, if `is_shown`, also what calls print."""
        self._channel, self._name, self._stream, self._is_shown = channel, name, stream, is_shown
        self._parts: dict[int, list[str]] = {}

    def write(self, text: str) -> int:
        """Prints."""
        job = running.get()
        if job is None or self._is_shown:
            self._stream.write(text)
        if job is not None:
            self._parts.setdefault(job.id, []).append(text)
            if "\n" in text or len(text) > _AT_ONCE:
                self.send(job.id)
        return len(text)

    def send(self, job: int) -> None:
        """Sends what a job has printed so far."""
        self._channel.output(job, self._name, "".join(self._parts.pop(job, ())))

    def writelines(self, lines: Any) -> None:
        """Prints several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Sends everything that was printed."""
        job = running.get()
        if job is not None:
            self.send(job.id)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
