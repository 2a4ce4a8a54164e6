"""What the drivers in Python share: `DRIVER MEASURE COUNT FOLDER SYNC`, and the one line of JSON that they print."""
import json, os, pathlib, re, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

measure, count, folder, sync, *more = sys.argv[1:]
count, folder = int(count), pathlib.Path(folder)
# Banners and logs of peers go to standard error.
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def peak(pid="self"):
    """The peak resident memory of a process, in KiB."""
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def report(seconds, **numbers):
    """Prints what a measure took."""
    print(json.dumps({"seconds": seconds, **numbers}), file=out, flush=True)


def timed(work):
    """How long something takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def calls(call, threads=1):
    """How long all calls take, by one thread or by several."""
    def some(first):
        for number in range(first, count, threads):
            call(number)
    if threads == 1:
        return timed(lambda: some(0))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: None, range(threads)))  # the threads are there
        return timed(lambda: list(pool.map(some, range(threads))))


def until(run, is_recorded, stop):
    """Runs a worker in this thread until all is recorded, and stops it; how long that took."""
    took = []

    def watch():
        while not is_recorded():
            time.sleep(0.005)
        took.append(time.perf_counter() - began)
        stop()

    began = time.perf_counter()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    run()
    watcher.join()
    return took[0]
