"""Huey on SQLite."""
import time
from driving import calls, count, folder, measure, more, peak, report, sync
from huey import SqliteHuey

# Its own setting is SQLite's: FULL. OFF is the other one that it offers.
fsync = {"own": None, "FULL": True, "OFF": False}[sync]
huey = SqliteHuey(filename=f"{folder}/queue.db", fsync=fsync, results=False)
ran = []


@huey.task()
def noop(a, b):
    ran.append(a)


@huey.task()
def sleep(a, b):
    time.sleep(0.001)
    ran.append(a)


def each():
    task = sleep if more else noop
    took = calls(lambda number: task(number, 7))
    assert huey.pending_count() == count
    return took


def drain():
    """By one thread, which is the fastest of its workers for what does nothing; it takes a job out of the store when it
    begins it."""
    threads = int(more[0]) if more else 1
    began = time.perf_counter()
    consumer = huey.create_consumer(workers=threads, periodic=False, initial_delay=0.01)
    consumer.start()
    while len(ran) < count:
        time.sleep(0.002)
    took = time.perf_counter() - began
    consumer.stop(graceful=True)
    assert len(ran) == count and huey.pending_count() == 0
    return took


report({"each": each, "drain": drain}[measure](), kib=peak())
