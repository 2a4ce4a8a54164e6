"""potatoq on SQLite: at NORMAL by itself, at FULL by its option `durable`."""
import os, signal, sqlite3
from driving import calls, count, folder, measure, peak, report, sync, until
from potatoq import Potatoq
from potatoq.cli import build_parser, cmd_worker

path = f"{folder}/queue.db"
options = {"durable": {"own": False, "FULL": True}[sync]}
app = Potatoq("peers", broker=f"sqlite:///{path}", broker_transport_options=options)


@app.task(ignore_result=True)
def noop(a, b): pass


def left():
    with sqlite3.connect(path) as db:
        return db.execute("SELECT COUNT(*) FROM potatoq_jobs").fetchone()[0]


def each():
    took = calls(lambda number: noop.delay(number, 7))
    assert left() == count
    assert app.broker.conn.execute("PRAGMA synchronous").fetchone() == (2 if sync == "FULL" else 1,)
    return took


def drain():
    """In this process, one job after the other, which is the fastest of its workers here."""
    some = sqlite3.connect(path, check_same_thread=False)
    is_empty = lambda: some.execute("SELECT 1 FROM potatoq_jobs LIMIT 1").fetchone() is None
    worker = build_parser().parse_args(["worker", "-P", "solo", "--loglevel", "WARNING"])
    took = until(lambda: cmd_worker(app, worker), is_empty, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert left() == 0
    return took


report({"each": each, "drain": drain}[measure](), kib=peak())
