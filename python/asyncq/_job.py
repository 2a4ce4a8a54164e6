"""Jobs: calls in the store, and what became of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ._errors import Error, Failed, Failure
from ._rpc import BUSY, request

if TYPE_CHECKING:
    State = Literal["queued", "held", "delayed", "processing", "completed", "error", "cancelled"]

R = TypeVar("R")

ENDED = ("completed", "error", "cancelled")


class Job(Generic[R]):
    """A job. What it is asked is read from the store, until it has ended."""

    __slots__ = ("_shown", "id")

    id: int
    """Its number, which `asyncq job show` takes."""

    def __init__(self, id: int, shown: dict[str, Any] | None = None) -> None:
        """`shown` is what `asyncq job show --json` prints, where that is known."""
        self.id = id
        self._shown = shown

    def __repr__(self) -> str:
        return f"<asyncq.Job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def state(self) -> State:
        """`queued`, `held`, `delayed`, `processing`, `completed`, `error` or `cancelled`."""
        state: State = self._read()["state"]
        return state

    @property
    def error(self) -> Failure | None:
        """Why the job, or its latest attempt, failed."""
        error = self._read().get("error")
        return Failure(error) if error else None

    @property
    def result(self) -> R:
        """What the function has returned. Raises `Failed` if it did not complete, `Error` if it has not ended."""
        shown = self._read()
        if shown["state"] not in ENDED:
            raise Error(f"job {self.id} has not ended: it is {shown['state']}", "`wait()` waits for it")
        return self._value(shown)

    def wait(self, timeout: float | None = None) -> R:
        """Waits until the job has ended, and gives what the function has returned.

        Raises `Failed` if it did not complete, `TimeoutError` after `timeout` seconds.
        """
        if self._shown is None or self._shown["state"] not in ENDED:
            params = {"jobs": [self.id], "timeout": timeout}
            try:
                [self._shown] = request("wait", json.dumps(params), repeat=True)["jobs"]
            except Error as error:
                if error.exit_code == BUSY and timeout is not None and "locked" not in str(error):
                    raise TimeoutError(f"job {self.id} has not ended after {timeout} seconds") from None
                raise
        assert self._shown is not None
        return self._value(self._shown)

    def refresh(self) -> None:
        """Reads the job again, also one that has ended and was retried."""
        self._shown = self._ask("job")

    def cancel(self) -> None:
        """Cancels the job. Raises `Error` when it has ended."""
        self._shown = self._ask("cancel")

    def retry(self) -> None:
        """Queues a job that has ended in an error, or was cancelled, once more."""
        self._shown = self._ask("retry")

    def start(self) -> None:
        """Releases a job that is held."""
        self._shown = self._ask("start")

    def _read(self) -> dict[str, Any]:
        if self._shown is None or self._shown["state"] not in ENDED:
            self.refresh()
        assert self._shown is not None
        return self._shown

    def _ask(self, method: str) -> dict[str, Any]:
        shown: dict[str, Any] = request(method, f'{{"job":{self.id}}}', repeat=method == "job")
        return shown

    def _value(self, shown: dict[str, Any]) -> R:
        if shown["state"] != "completed":
            error = shown.get("error")
            raise Failed(self.id, Failure(error) if error else None)
        value: R = shown.get("result")  # type: ignore[assignment]
        return value


def job(id: int) -> Job[Any]:
    """The job with this number."""
    if isinstance(id, bool) or not isinstance(id, int):
        raise TypeError(f"the number of a job is a whole number, not {id!r}")
    return Job(id)
