"""tinyjobs on SQLite, which is always at NORMAL there."""
import asyncio, os, signal, sqlite3, time
from driving import count, folder, measure, peak, report, sync, until
from tinyjobs import TinyJobs

assert sync == "own"
app = TinyJobs(f"sqlite:///{folder}/queue.db")
ran = []


@app.task
def noop(a, b):
    ran.append(a)


def each():
    """From asynchronous code, which it calls its native path, and which is the faster one."""
    async def run():
        await app.ready()
        began = time.perf_counter()
        for number in range(count):
            await noop.aenqueue(number, 7)
        return time.perf_counter() - began
    took = asyncio.run(run())
    assert recorded("queued") == count
    return took


def drain():
    """Up to eight at once, as it does by itself."""
    done = lambda: len(ran) == count and recorded("success") == count
    return until(app.worker().run, done, lambda: os.kill(os.getpid(), signal.SIGTERM))


def recorded(status):
    with sqlite3.connect(f"{folder}/queue.db") as db:
        return db.execute("SELECT COUNT(*) FROM jobs WHERE status = ?", (status,)).fetchone()[0]


report({"each": each, "drain": drain}[measure](), kib=peak())
