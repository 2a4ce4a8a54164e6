"""Jobs: calls in the store, and how they end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ._calls import listed
from ._errors import Error, Failed, Failure
from ._json import encode_arguments
from ._rpc import is_time_over, request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._look import Explanation, Log

    State = Literal["queued", "held", "delayed", "blocked", "processing", "completed", "error", "cancelled"]

R = TypeVar("R")

ENDED = ("completed", "error", "cancelled")


class Job(Generic[R]):
    """A job. Its properties read the store each time, until the job has ended."""

    __slots__ = ("_shown", "id")

    id: int
    """Its number, which `asyncq job show` takes."""

    def __init__(self, id: int, shown: dict[str, Any] | None = None) -> None:
        """`shown` is what `asyncq job show --json` prints, if that is known."""
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
        """`queued`, `held`, `delayed`, `blocked`, `processing`, `completed`, `error` or `cancelled`."""
        state: State = self._read()["state"]
        return state

    @property
    def error(self) -> Failure | None:
        """Why the job, or its latest attempt, failed."""
        error = self._read().get("error")
        return Failure(error) if error else None

    @property
    def result(self) -> R:
        """What the function has returned. Raises `Failed` if the job did not complete, `Error` if it has not ended."""
        shown = self._read()
        if shown["state"] not in ENDED:
            raise Error(f"job {self.id} has not ended: it is {shown['state']}", "`wait()` waits for it")
        return self._value(shown)

    def wait(self, timeout: float | None = None) -> R:
        """Waits until the job has ended, and returns what the function has returned.

        Raises `Failed` if it did not complete, `TimeoutError` after `timeout` seconds.
        """
        if self._shown is None or self._shown["state"] not in ENDED:
            params = {"jobs": [self.id], "timeout": timeout}
            try:
                [self._shown] = request("wait", json.dumps(params), repeat=True)["jobs"]
            except Error as error:
                if timeout is not None and is_time_over(error):
                    raise TimeoutError(f"job {self.id} has not ended after {timeout} seconds") from None
                raise
        assert self._shown is not None
        return self._value(self._shown)

    def refresh(self) -> None:
        """Reads the job again, even if it had ended and was retried."""
        self._shown = self._ask("job")

    def cancel(self) -> None:
        """Cancels the job. Raises `Error` when it has ended."""
        self._shown = self._ask("cancel")

    def retry(self) -> None:
        """Queues the job again that ended in an error or was cancelled."""
        self._shown = self._ask("retry")

    def start(self) -> None:
        """Releases the job if it is held."""
        self._shown = self._ask("start")

    def rerun(self, *, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None) -> Job[R]:
        """Calls the function again, as a new job, with the same arguments or with others. If this job waits, it is cancelled."""
        texts = encode_arguments(f"job {self.id}", tuple(listed("args", args or ())), dict(kwargs or {}))
        params = f'{{"job":{self.id}'
        if args is not None:
            params += f',"args":{texts[0]}'
        if kwargs is not None:
            params += f',"kwargs":{texts[1]}'
        return Job(int(request("rerun", params + "}")["job"]))

    def log(self, attempt: int | None = None) -> Log:
        """What is kept of the output of an attempt, or of the latest one. It is empty while the attempt runs."""
        from ._look import log

        return log(self.id, attempt)

    def explain(self) -> Explanation:
        """Why the job does not run, or why it ended as it did."""
        from ._look import explain

        return explain(self.id)

    def follow(self) -> R:
        """Prints what the job prints, as it prints it, until it has ended; returns what the function has returned.

        Its stdout goes to `sys.stdout`, and its stderr, with what asyncq says about the job, to `sys.stderr`. Raises `Failed`
        if the job did not complete.
        """
        from ._process import follow

        follow(self.id)
        return self.wait()

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
