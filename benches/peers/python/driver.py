"""Huey on SQLite: `python driver.py MEASURE COUNT FOLDER SYNC`; prints one line of JSON."""
import json, pathlib, re, sys, time
from huey import SqliteHuey

measure, count, folder, sync = sys.argv[1:5]
count = int(count)
# Its own setting is SQLite's: FULL. OFF is the other one that it offers.
fsync = {"own": None, "FULL": True, "OFF": False}[sync]
huey = SqliteHuey(filename=f"{folder}/queue.db", fsync=fsync, results=False)
ran = 0


@huey.task()
def noop(a, b):
    global ran
    ran += 1


def each():
    for number in range(count):
        noop(number, 7)
    took = time.perf_counter() - began
    assert huey.pending_count() == count
    return took


def drain():
    """By one thread, which is the fastest of its workers; it takes a job out of the store when it begins it."""
    consumer = huey.create_consumer(workers=1, periodic=False, initial_delay=0.01)
    consumer.start()
    while ran < count:
        time.sleep(0.002)
    took = time.perf_counter() - began
    consumer.stop(graceful=True)
    assert ran == count and huey.pending_count() == 0
    return took


began = time.perf_counter()
seconds = {"each": each, "drain": drain}[measure]()
kib = int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])
print(json.dumps({"seconds": seconds, "kib": kib}))
