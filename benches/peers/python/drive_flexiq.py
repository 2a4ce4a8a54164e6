"""flexiq on SQLite, which is always at NORMAL there."""
import os
from driving import calls, count, folder, measure, peak, report, sync, until
os.environ["FLEXIQ_LOG_LEVEL"] = "WARNING"  # not two lines for each job
from flexiq import Queue

assert sync == "own"
# With its own pause of 50 ms and one job at a time it does 76 jobs a second.
queue = Queue(db_path=f"{folder}/queue.db", workers=4, scheduler_poll_interval_ms=1, scheduler_batch_size=200)
ran = []


@queue.task()
def noop(a, b):
    ran.append(a)


def each():
    took = calls(lambda number: noop.delay(number, 7))
    assert queue.stats()["pending"] == count, queue.stats()
    return took


def drain():
    done = lambda: len(ran) >= count and queue.stats()["completed"] == count
    took = until(queue.run_worker, done, queue.shutdown)
    assert len(ran) == count
    return took


report({"each": each, "drain": drain}[measure](), kib=peak())
os._exit(0)  # not its threads' tidying up
