"""asyncq by its package for Python. The store and its services are there."""
import json, multiprocessing, os, pathlib, sqlite3, subprocess, sys
from driving import calls, count, folder, measure, more, peak, report, timed

import asyncq, peers_calls

STORE, BINARY = folder / "queue.db", os.environ["ASYNCQ"]


def client():
    """A process that has called once, so that its child runs and the function is registered."""
    asyncq.configure(db=STORE, binary=BINARY)
    asyncq.define_service("mail")
    peers_calls.mail(0, 7)


def in_store(which):
    with sqlite3.connect(STORE) as db:
        return db.execute(f"SELECT COUNT(*) FROM asyncq_job WHERE {which}").fetchone()[0]


def each():
    """Calls by one thread, or by several."""
    threads = int(more[0]) if more else 1
    client()
    took = calls(lambda number: peers_calls.mail(number, 7), threads)
    assert in_store("state = 'queued'") == count + 1
    report(took, kib=peak())


def transaction():
    """Orders of an application in the same file, each with a call in its transaction, or alone."""
    db = sqlite3.connect(STORE, isolation_level=None)
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, amount INTEGER)")
    client()
    what = {"alone": lambda number: None, "using": lambda number: peers_calls.mail.using(db).enqueue(number, 7),
            "INSERT": lambda number: db.execute(INSERT, (f"[{number},7]",)).fetchone()}[more[0]]

    def order(number):
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO orders (item, amount) VALUES (?, ?)", ("tea", number))
        what(number)
        db.execute("COMMIT")
    took = calls(order)
    assert in_store("TRUE") == 1 + (count if more[0] != "alone" else 0)
    report(took, kib=peak())


INSERT = "INSERT INTO asyncq_job (service, function, args) VALUES ('mail', 'peers_calls.mail', ?) RETURNING id"


def fill(function):
    """Calls of a function that wait."""
    path = folder / "calls"
    with open(path, "w") as file:
        for number in range(count):
            file.write(json.dumps({"service": "events", "function": function, "args": [number, 7]}) + "\n")
    subprocess.run([BINARY, "--db", STORE, "--quiet", "enqueue", "--batch", path], check=True,
                   stdout=subprocess.DEVNULL)
    path.unlink()


def register(threads=1):
    """As a deployment does, by a process of its own: no child of this one holds the store open meanwhile."""
    env = {**os.environ, "ASYNCQ_DB": str(STORE), "ASYNCQ_BIN": BINARY}
    subprocess.run([BINARY, "--quiet", "service", "add", "mail"], env=env, check=True)
    words = ["-m", "asyncq.register", "--threads", str(threads), "peers_calls"]
    subprocess.run([sys.executable, *words], env=env, check=True, cwd=pathlib.Path(__file__).parent)


def processor():
    return [BINARY, "--db", STORE, "--quiet", "process", "events"]


def drain():
    """By `asyncq process`, with its start and that of its workers."""
    register(int(more[1]))
    fill(f"peers_calls.{more[0]}")
    took = timed(lambda: subprocess.run(processor(), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
    assert in_store("state = 'completed'") == count
    report(took)


def here():
    """By this process."""
    register()
    fill("peers_calls.noop")
    asyncq.configure(db=STORE, binary=BINARY)
    took = timed(lambda: asyncq.process("events"))
    assert in_store("state = 'completed'") == count
    report(took, kib=peak())


def crowd():
    """Calls by six processes, beside a processor with much to do for workers that are quick."""
    fill("noop")
    client()
    ways = multiprocessing.get_context("spawn")
    ready, over, found = ways.Barrier(7), ways.Event(), ways.Queue()
    clients = [ways.Process(target=caller, args=(sys.argv, more[0], ready, over, found), daemon=True) for _ in range(6)]
    for one in clients:
        one.start()
    ready.wait()
    drained = subprocess.Popen(processor(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert drained.wait() == 0
    over.set()
    took = sorted(each for _ in clients for each in found.get())
    for one in clients:
        one.join()
    assert in_store("state = 'completed'") == count and in_store("service = 'mail'") >= len(took) >= 100
    report(took[len(took) // 2], p99=took[len(took) * 99 // 100], worst=took[-1], calls=len(took))


def caller(words, how, ready, over, found):
    """How long each call of one process takes until the queue is drained."""
    if how == "package":
        client()
        call = lambda: peers_calls.mail(2, 7)
    else:
        db = sqlite3.connect(STORE, isolation_level=None, timeout=60)
        db.execute("PRAGMA synchronous=FULL")
        call = lambda: db.execute(INSERT, ("[2,7]",)).fetchone()
    took = []
    ready.wait()
    while not over.is_set():
        took.append(timed(call))
    found.put(took)


if __name__ == "__main__":
    {"each": each, "transaction": transaction, "drain": drain, "here": here, "crowd": crowd}[measure]()
