#!/usr/bin/env python3
"""Measures asyncq and its peers side by side, in interleaved rounds. Called by `run`, which installs them; README.md tells
what each row means."""
import argparse, contextlib, json, os, pathlib, shutil, statistics, subprocess, sys, time
from dataclasses import dataclass, field
from typing import Callable

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
THERE = ROOT / "target/peers"
BUILT = THERE / "build/release"
ASYNCQ = ROOT / "target/release/asyncq"
PUEUE = THERE / "cargo/bin"
PYTHON = THERE / "python/bin/python"
LIMIT = 120  # seconds for one step of one round
TRUE = "/bin/true"
# Programs in Python find what they import compiled, as where they are installed.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(THERE / "pycache")

PACKAGE = "asyncq for Python"
PACKAGE_PATH = {"PYTHONPATH": str(ROOT / "python")}
DRIVERS = {
    "asyncq": [BUILT / "peers-asyncq"],
    "bare table": [BUILT / "bare"],
    "honker": [BUILT / "peers-honker"],
    "River": [BUILT / "river"],
    "apalis-sqlite": [BUILT / "apalis"],
    "effectum": [BUILT / "peers-effectum"],
    "plainjob": ["node", THERE / "node/driver.mjs"],
    **{peer: [PYTHON, HERE / f"python/drive_{peer}.py"] for peer in ("huey", "flexiq", "potatoq", "tinyjobs")},
    PACKAGE: [PYTHON, HERE / "python/drive_asyncq.py"],
    "bare sqlite3": [PYTHON, HERE / "python/drive_sqlite3.py"],
}
OWN = {  # what a peer sets by itself
    "honker": "WAL, NORMAL",
    "apalis-sqlite": "WAL, OFF",
    "effectum": "rollback journal, NORMAL",
    "plainjob": "WAL, NORMAL",
    "huey": "WAL, FULL",
    "flexiq": "WAL, NORMAL",
    "potatoq": "WAL, NORMAL",
    "tinyjobs": "WAL, NORMAL",
}
OURS = {"asyncq", PACKAGE}
for ours in OURS:
    OWN[ours] = "WAL, EXTRA (FULL or more)"


@dataclass
class Row:
    """One line of a table: what is measured, and how its jobs are made durable."""
    name: str
    durability: str
    count: int
    run: Callable[[pathlib.Path], dict]
    results: list = field(default_factory=list)
    failure: str = ""


def call(words, env=None, **options):
    """Runs a program to its end; what it prints."""
    options.setdefault("timeout", LIMIT)
    done = subprocess.run(list(map(str, words)), env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{words[0]}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def drive(peer, measure, count, folder, sync, *more):
    """Runs a driver; the numbers that it prints."""
    os.sync()  # what was written before is not its burden
    env = {"ASYNCQ": str(ASYNCQ), **PACKAGE_PATH}
    return json.loads(call([*DRIVERS[peer], measure, count, folder, sync, *more], env))


def row(peer, measure, count, sync="own", before=(), what="", at_once=1, function=("--", TRUE), more=()):
    """A line that a driver measures, after what it does `before`, as `[(MEASURE, COUNT)]`, which is not timed. The driver gets
    `more` as its last words."""
    def run(folder):
        if peer in OURS:
            asyncq_store(folder, at_once, function)
        for earlier, number in before:
            drive(peer, earlier, number, folder, sync, *more)
        return drive(peer, measure, count, folder, sync, *more)
    return Row(f"{peer}{what and ', '}{what}", how(peer, sync), count, run)


def how(peer, sync):
    """How a peer makes jobs durable with this setting."""
    if sync == "own":
        return OWN[peer] if peer in OURS else f"{OWN[peer]} (its own)"
    return f"WAL{' (set beforehand)' if peer == 'effectum' else ''}, {sync}"


def asyncq_store(folder, at_once=1, function=("--", TRUE), name="noop"):
    """A store with a service and a function; the environment in which it is used."""
    env = {"ASYNCQ_DB": str(folder / "queue.db")}
    call([ASYNCQ, "service", "add", "events", "--concurrency", at_once], env)
    call([ASYNCQ, "function", "add", "events", name, *function], env, cwd=folder)
    return env


def spawn(count, folder, words, env=None, threads=None):
    """Runs a program so many times; by threads that do so one after the other, or else timed one by one."""
    how = ["spawn", count, folder, "own", threads] if threads else ["median", count, folder, "own"]
    return json.loads(call([*DRIVERS["bare table"], *how, *words], env))


# One process for each call.

def like_store(folder):
    """A table like asyncq's in which nothing is checked."""
    schema = (ROOT / "schema.sql").read_text().split("CREATE TRIGGER")[0].replace("asyncq_", "like_")
    call(["sqlite3", folder / "like.db", "PRAGMA journal_mode=WAL; " + schema])
    return folder / "like.db"


def expect(found, count):
    if int(found) != count:
        raise RuntimeError(f"{found} of {count} jobs are there")


def enqueue_asyncq(count):
    def run(folder):
        env = asyncq_store(folder)
        took = spawn(count, folder, [ASYNCQ, "enqueue", "events", "noop", "2", "7"], env)
        expect(call(["sqlite3", folder / "queue.db", "SELECT COUNT(*) FROM asyncq_job"]), count)
        return took
    return run


def enqueue_like(count, words):
    def run(folder):
        store = like_store(folder)
        took = spawn(count, folder, [word or store for word in words])
        expect(call(["sqlite3", store, "SELECT COUNT(*) FROM like_job"]), count)
        return took
    return run


def spoolctl(count):
    """A program in Python, which imports itself anew for each call."""
    def run(folder):
        took = spawn(count, folder, [PYTHON.with_name("spoolctl"), "add", "--", TRUE], {"SPOOLCTL_DB": str(folder / "queue.db")})
        expect(call(["sqlite3", folder / "queue.db", "SELECT COUNT(*) FROM jobs WHERE state = 'queued'"]), count)
        return took
    return run


@contextlib.contextmanager
def gate(folder, slots):
    """A program at which a queue stands until the gate is opened, and what opens it for so many of that program."""
    path = folder / "gate"
    os.mkfifo(path)
    opened = []

    def open_it():
        opened.append(True)
        path.write_text("\n" * slots)
    try:
        yield ["sh", "-c", 'read line < "$0"', path], open_it
    finally:
        opened or open_it()


def nq(count, drain):
    """A file and two waiting processes for each job; one at a time."""
    def run(folder):
        env = {"NQDIR": str(folder / "jobs")}
        (folder / "jobs").mkdir()
        with gate(folder, 1) as (wait, open_gate):
            call(["nq", "-q", *wait], env)
            took = spawn(count, folder, ["nq", "-q", TRUE], env)
            began = time.perf_counter()
            open_gate()
            call(["nq", "-w"], env)
            drained = time.perf_counter() - began
        # It is over a moment before it has written how the last one ended.
        done = lambda: sum("exited with status 0" in job.read_text() for job in (folder / "jobs").glob(",*"))
        wait_for(lambda: done() == count + 1)
        return {"seconds": drained} if drain else took
    return run


def tsp(count, drain, slots=1):
    """All in the memory of its server; one waiting process for each job, 1,000 at most."""
    def run(folder):
        env = {"TS_SOCKET": str(folder / "socket"), "TS_MAXFINISHED": "2000", "TMPDIR": str(folder)}
        call(["tsp", "-S", slots], env)
        try:
            with gate(folder, slots) as (wait, open_gate):
                for _ in range(slots):
                    call(["tsp", "-n", *wait], env)
                took = spawn(count, folder, ["tsp", "-n", TRUE], env)
                began = time.perf_counter()
                open_gate()
                call(["tsp", "-w"], env)
                drained = time.perf_counter() - began
            time.sleep(0.1)
            jobs = [line.split() for line in call(["tsp"], env).splitlines()[1:]]
            expect(sum(job[1] == "finished" and job[3] == "0" for job in jobs), count + slots)
        finally:
            call(["tsp", "-K"], env)
        return {"seconds": drained} if drain else took
    return run


def pueue(count, drain, slots=1):
    """A daemon, started for this, that writes all its state as JSON at each change."""
    def run(folder):
        config = folder / "pueue.yml"
        shared = {"pueue_directory": str(folder), "runtime_directory": str(folder), "use_unix_socket": True,
                  "unix_socket_path": str(folder / "socket")}
        config.write_text(json.dumps({"shared": shared, "client": {}, "daemon": {}}))  # JSON is YAML too
        client = [PUEUE / "pueue", "--config", config]
        with open(folder / "log", "w") as log:
            daemon = subprocess.Popen([PUEUE / "pueued", "--config", config], stdout=log, stderr=log)
        try:
            wait_for(lambda: (folder / "socket").exists())
            call([*client, "parallel", slots])
            call([*client, "pause"])
            took = spawn(count, folder, [*client, "add", "--", TRUE])

            def tasks():
                return json.loads(call([*client, "status", "--json"]))["tasks"].values()
            expect(len(tasks()), count)
            if drain:
                began = time.perf_counter()
                call([*client, "start"])
                wait_for(lambda: sum("Success" in json.dumps(task["status"]) for task in tasks()) == count, 0.1)
                took = {"seconds": time.perf_counter() - began}
            return {**took, "kib": peak(daemon.pid)}
        finally:
            call([*client, "shutdown"])
            daemon.wait(LIMIT)
    return run


def wait_for(condition, pause=0.01):
    for _ in range(int(LIMIT / pause)):
        if condition():
            return
        time.sleep(pause)
    raise TimeoutError


def status(pid, name):
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


def peak(pid):
    return status(pid, "VmHWM")


# Waiting for calls.

def tree(pid):
    """A process and all that it has started."""
    with contextlib.suppress(OSError):
        yield pid
        for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from tree(int(child))


def used(pid):
    """Seconds of processor that a process and all that it has started have used."""
    total = 0
    for process in tree(pid):
        for thread in pathlib.Path(f"/proc/{process}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def latency(peer, count, sync="own", idle=3.0):
    """From the commit in one process to the start of the function in another; and what waiting costs."""
    def run(folder):
        times = folder / "times"
        words, env = [*DRIVERS[peer], "work", 0, folder, sync], {}
        if peer == "asyncq":
            if "--follow" not in call([ASYNCQ, "process", "--help"]):
                raise RuntimeError("this asyncq has no `process --follow`")
            env = {"PEERS_TIMES": str(times)}
            env |= asyncq_store(folder, 1, ("--worker", "--", BUILT / "worker"), "now")
            words = [ASYNCQ, "process", "events", "--follow"]
        with open(times, "w") as out:
            worker = subprocess.Popen(list(map(str, words)), env={**os.environ, **env}, stdout=out)
        try:
            time.sleep(1)
            starts = lambda: [int(line) for line in times.read_text().splitlines()]
            drive_lines = lambda number: call([*DRIVERS[peer], "call", number, folder, sync]).splitlines()
            drive_lines(1)
            wait_for(lambda: len(starts()) == 1)
            commits = [int(line.split()[1]) for line in drive_lines(count)]
            wait_for(lambda: len(starts()) == count + 1)
            took = sorted((start - commit) / 1e9 for start, commit in zip(starts()[1:], commits))
            time.sleep(1)
            before = used(worker.pid)
            time.sleep(idle)
            cpu = 100 * (used(worker.pid) - before) / idle
            kib = max(map(peak, tree(worker.pid)))
        finally:
            worker.terminate()
            worker.wait(LIMIT)
        return {"seconds": took[len(took) // 2], "p99": took[int(len(took) * 0.99)], "cpu": cpu, "kib": kib}
    return Row(peer, how(peer, sync), 1, run)


def measures(n):
    """All tables; `n` makes counts smaller for a quick check."""
    rust, python = ("--worker", "--", BUILT / "worker"), ("--worker", "--", "python3", HERE / "python/worker.py")
    one, some, queued = n(300), n(4000), n(20000)
    tables = {}
    tables["enqueue"] = ("One process for each call", "ms", [
        Row("asyncq enqueue", OWN["asyncq"], one, enqueue_asyncq(one)),
        Row("a bare program in Rust that inserts", "WAL, FULL", one, enqueue_like(one, [BUILT / "one", None])),
        Row("sqlite3 shell, INSERT into a like table", "WAL, FULL", one, enqueue_like(one, ["sqlite3", None, INSERT])),
        Row("pueue add", "JSON file, not synced", one, pueue(one, False)),
        Row("spoolctl add", "WAL, NORMAL (its own)", one, spoolctl(one)),
        Row("nq", "file, not synced", one, nq(one, False)),
        Row("tsp", "none: memory", one, tsp(one, False)),
        Row("/bin/true", "none", one, lambda folder: spawn(one, folder, [TRUE])),
    ])
    tables["each"] = ("Through one process, a transaction for each call", "rate", [
        row("asyncq", "each", some, what="Store::enqueue"),
        row("asyncq", "lines", some, what="enqueue --batch -, line by line"),
        row("bare table", "each", some, "FULL"),
        row("huey", "each", some),
        row("plainjob", "each", some, "FULL"),
        row("honker", "each", some, "FULL"),
        row("River", "each", some, "FULL"),
        row("apalis-sqlite", "each", some, "FULL"),
        row("effectum", "each", n(2000)),
        row("bare table", "each", queued, "NORMAL"),
        row("plainjob", "each", queued),
        row("honker", "each", queued),
        row("River", "each", some, "NORMAL"),
        row("effectum", "each", queued, "NORMAL"),
        row("apalis-sqlite", "each", some),
    ])
    many = n(200000)
    tables["bulk"] = ("Many calls, 1,000 in a transaction", "rate", [
        row("asyncq", "bulk", many, what="enqueue --batch FILE"),
        row("bare table", "bulk", many, "FULL"),
        row("plainjob", "bulk", many, "FULL"),
        row("plainjob", "bulk", many),
        row("effectum", "bulk", many),
        row("honker", "bulk", many, "FULL"),
        row("honker", "bulk", many),
        row("River", "bulk", n(20000), "FULL"),
        row("apalis-sqlite", "bulk", n(20000), "FULL"),
        row("apalis-sqlite", "bulk", n(20000)),
    ])
    for slots in (1, 2):
        jobs, few = n(600), n(12)
        loop = lambda folder, slots=slots: spawn(n(2000), folder, [TRUE], threads=slots)
        rows = [
            row("asyncq", "drain", n(2000), before=[("bulk", n(2000))], at_once=slots),
            Row("bare loop", "none", n(2000), loop),
            Row("tsp", "none: memory", jobs, tsp(jobs, True, slots)),
            Row("nq", "file, not synced", jobs, nq(jobs, True)),
            Row("pueue", "JSON file, not synced", few, pueue(few, True, slots)),
        ]
        rows = [it for it in rows if slots == 1 or it.name != "nq"]
        tables[f"processes-{slots}"] = (f"Draining /bin/true, {slots} at once", "rate", rows)
    drained = lambda peer, count, sync="own", **more: row(peer, "drain", count, sync, [("bulk", count)], **more)
    tables["workers"] = ("Draining jobs that do nothing, in workers", "rate", [
        drained("asyncq", n(200000), what="a worker in Rust", function=rust),
        drained("asyncq", n(200000), what="two workers in Rust", function=rust, at_once=2),
        drained("asyncq", n(100000), what="a worker in Python", function=python),
        drained("asyncq", n(100000), what="two workers in Python", function=python, at_once=2),
        row("honker", "claim-128", queued, "FULL", [("bulk", queued)], "batches of 128"),
        drained("plainjob", some, "FULL"),
        drained("River", queued, "FULL"),
        row("huey", "drain", some, before=[("each", some)]),
        drained("apalis-sqlite", n(2000), "FULL"),
        drained("effectum", some),
        row("honker", "claim-128", queued, before=[("bulk", queued)], what="batches of 128"),
        drained("plainjob", queued),
        drained("River", queued, "NORMAL"),
        drained("effectum", queued, "NORMAL"),
        drained("apalis-sqlite", n(2000)),
    ])
    for backlog in (n(20000), n(100000)):
        claim = lambda peer, sync="own", backlog=backlog, **more: row(
            peer, "claim-128", backlog, sync, [("bulk", backlog)], **more)
        tables[f"claim-128-{backlog}"] = (f"Claim and finish, 128 at once, of {backlog:,}", "rate", [
            claim("asyncq", at_once=1000),
            claim("bare table", "FULL"), claim("honker", "FULL"), claim("bare table", "NORMAL"), claim("honker"),
        ])
    first = lambda peer, count, sync="own", **more: row(peer, "claim-1", count, sync, [("bulk", queued)], **more)
    tables["claim-1"] = (f"Claim and finish, one at a time, of {queued:,}", "rate", [
        first("asyncq", some),
        first("bare table", some, "FULL"), first("plainjob", some, "FULL"), first("honker", n(1000), "FULL"),
        first("bare table", queued, "NORMAL"), first("plainjob", queued), first("honker", n(1000)),
    ])
    nothing = lambda peer, count, sync="own": row(peer, "empty", count, sync, [("future", n(50000))])
    tables["empty"] = (f"Looking for work where nothing is due, beside {n(50000):,} future jobs", "µs", [
        nothing("asyncq", n(20000)), nothing("bare table", n(20000), "FULL"), nothing("plainjob", n(20000)),
        nothing("honker", n(500)),
    ])
    calls = n(100)
    tables["latency"] = ("From commit in one process to the start of a function in another that is idle", "ms", [
        latency("asyncq", calls), latency("honker", calls, "FULL"), latency("River", calls, "FULL"),
        latency("honker", calls), latency("River", calls, "NORMAL"),
    ])
    return tables | python_measures(n)


def python_measures(n):
    """The tables of clients and workers in Python. All programs here are run by the same interpreter."""
    rust, bare = ("--worker", "--", BUILT / "worker"), ("--worker", "--", PYTHON, HERE / "python/worker.py")
    some, queued, many = n(4000), n(20000), n(100000)
    package = lambda measure, count, what, *more, **options: row(PACKAGE, measure, count, what=what, more=more, **options)
    tables = {}
    tables["python-each"] = ("Out of a program in Python, a transaction for each call", "rate", [
        package("each", some, "f(...)"),
        package("each", some, "f(...) in 8 threads", 8),
        row("bare sqlite3", "each", some, "FULL", what="INSERT"),
        row("huey", "each", some),
        row("potatoq", "each", some, "FULL"),
        row("bare sqlite3", "each", queued, "NORMAL", what="INSERT"),
        row("flexiq", "each", queued),
        row("potatoq", "each", queued),
        row("tinyjobs", "each", queued),
    ])
    tables["python-transaction"] = ("In the application's transaction, which inserts an order", "rate", [
        package("transaction", some, "f.using(db).enqueue(...)", "using"),
        Row("the order alone", "WAL, FULL", some, package("transaction", some, "", "alone").run),
        Row("the order and a bare INSERT into asyncq_job", "WAL, FULL", some, package("transaction", some, "", "INSERT").run),
    ])
    # Its figures are those of one call.
    crowd = lambda name, durability, how: Row(name, durability, 1, package("crowd", n(200000), "", how, function=rust).run)
    tables["python-crowd"] = ("A call by one of six processes, beside a drain by a worker in Rust", "ms", [
        crowd("asyncq for Python, f(...)", OWN[PACKAGE], "package"),
        crowd("a bare INSERT into asyncq_job by sqlite3", "WAL, FULL", "INSERT"),
    ])
    tables["python-workers"] = ("Draining functions in Python that do nothing", "rate", [
        package("drain", many, "a worker", "noop", 1),
        row("asyncq", "drain", many, before=[("bulk", many)], what="the bare worker of these benches", function=bare),
        package("drain", n(50000), "a line printed each", "line", 1),
        package("here", queued, "asyncq.process in the program itself"),
        row("huey", "drain", some, before=[("each", some)]),
        row("potatoq", "drain", some, "FULL", before=[("each", some)]),
        row("flexiq", "drain", some, before=[("each", some)]),
        row("potatoq", "drain", some, before=[("each", some)]),
        row("tinyjobs", "drain", some, before=[("each", some)]),
    ])
    slow = n(4000)
    tables["python-1ms"] = ("Draining functions in Python that sleep for 1 ms", "rate", [
        package("drain", slow, "a worker", "sleep1", 1),
        package("drain", 4 * slow, "a worker with --threads 8", "sleep1", 8, at_once=8),
        row("bare sqlite3", "sleep", slow, "FULL", what="a plain loop that sleeps"),
        row("huey", "drain", slow, before=[("each", slow)], what="a thread", more=[1]),
        row("huey", "drain", slow, before=[("each", slow)], what="8 threads", more=[8]),
    ])
    tables["python-3ms"] = ("Draining functions in Python that sleep for 3 ms", "rate", [
        package("drain", n(16000), "8 workers", "sleep3", 1, at_once=8),
        package("drain", n(2000), "a worker", "sleep3", 1),
    ])
    starts = n(100)
    tables["python-import"] = ("Starting Python", "ms", [
        Row(f'python -c "{code}"', "none", starts, start_python(starts, code))
        for code in ("import asyncq", "pass", "import huey", "import tinyjobs", "import potatoq", "import flexiq")
    ] + [Row("of which `import asyncq`, as -X importtime says", "none", 1, import_time(starts))])
    return tables


def start_python(count, code):
    def run(folder):
        call([PYTHON, "-c", code], PACKAGE_PATH)  # it is compiled
        return {"seconds": spawn(count, folder, [PYTHON, "-c", code], PACKAGE_PATH)["seconds"]}
    return run


def import_time(count):
    """What the interpreter itself says of an import with all that it imports, the median."""
    command = [PYTHON, "-X", "importtime", "-c", "import asyncq"]

    def once():
        told = subprocess.run(command, env={**os.environ, **PACKAGE_PATH}, stderr=subprocess.PIPE, text=True, check=True).stderr
        own, total, name = told.splitlines()[-1].split("|")
        assert name == " asyncq"
        return int(total) / 1e6

    def run(folder):
        once()
        return {"seconds": statistics.median(once() for _ in range(count))}
    return run


INSERT = "INSERT INTO like_job (service, function, args) VALUES ('events', 'noop', '[2,7]') RETURNING id"
UNITS = {
    "rate": ("jobs a second", lambda each: f"{1 / each:,.0f}" if each < 0.1 else f"{1 / each:.1f}"),
    "ms": ("ms", lambda each: f"{1000 * each:.2f}"),
    "µs": ("µs", lambda each: f"{1e6 * each:,.1f}"),
}
EXTRA = {  # columns of what only some measures have
    "p99": ("p99", UNITS["ms"][1]),
    "worst": ("worst", UNITS["ms"][1]),
    "calls": ("calls", lambda number: f"{number:,.0f}"),
    "cpu": ("idle, % of a core", lambda percent: f"{percent:.2f}"),
}


def table(title, unit, rows, rounds):
    """The table in Markdown."""
    head, show = UNITS[unit]
    ours = [r["seconds"] / rows[0].count for r in rows[0].results]
    extra = [key for key in EXTRA if any(key in result for it in rows for result in it.results)]
    columns = ["", "durability", f"{head}{', p50' if extra else ''}: median [range]", "asyncq is so many times as fast"]
    columns += [EXTRA[key][0] for key in extra]
    lines = [f"### {title}", "", f"Medians of {rounds}.", ""]
    lines += ["| " + " | ".join([*columns, "peak MiB"]) + " |", "|---" * (len(columns) + 1) + "|"]
    for it in rows:
        cells = [it.name, it.durability]
        if it.failure:
            lines.append("| " + " | ".join(cells + [it.failure] + ["-"] * (len(columns) - 2)) + " |")
            continue
        middle = lambda key: statistics.median(result[key] for result in it.results)
        each = sorted((result["seconds"] / it.count for result in it.results), reverse=unit == "rate")
        cells.append(f"{show(statistics.median(each))} [{show(each[0])} - {show(each[-1])}]")
        cells.append(f"{statistics.median(each) / statistics.median(ours):.2f}" if ours else "-")
        cells += [EXTRA[key][1](middle(key)) for key in extra]
        kib = max(result.get("kib", 0) for result in it.results)
        # What a program that only starts others needs tells nothing.
        cells.append(f"{kib / 1024:.1f}" if kib and it.name not in NO_MEMORY else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


NO_MEMORY = ["asyncq enqueue", "a bare program in Rust that inserts", "sqlite3 shell, INSERT into a like table", "spoolctl add",
             "nq", "tsp", "/bin/true", "bare loop"]


def measure_once(it, folder):
    """One round of one line; one that fails is not tried again, and not the others' fault."""
    folder.mkdir(parents=True)
    try:
        it.results.append(it.run(folder))
    except (subprocess.TimeoutExpired, TimeoutError):
        it.failure = f"not done in {LIMIT} s"
    except RuntimeError as error:
        it.failure = str(error).splitlines()[0].replace("|", "/")
        print(f"{it.name}: {error}", file=sys.stderr)
    finally:
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measure", nargs="*", help="only these; `processes` is both `processes-1` and `processes-2`")
    parser.add_argument("--quick", action="store_true", help="one round with a tenth of the jobs, to see that all works")
    parser.add_argument("--rounds", type=int, help="how many rounds [default: 5, and 1 with --quick]")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 5)
    chosen = {name: it for name, it in measures(lambda count: max(2, count // 10) if asked.quick else count).items()
              if not asked.measure or any(word in (name, name.rsplit("-", 1)[0]) for word in asked.measure)}
    if not chosen:
        sys.exit("there is no such measure")
    stores = THERE / "stores"
    shutil.rmtree(stores, ignore_errors=True)
    results = THERE / "results.md"
    results.write_text("")
    for title, unit, rows in chosen.values():
        for _ in range(rounds):
            for number, it in enumerate(rows):
                if not it.failure:
                    measure_once(it, stores / str(number))
        text = table(title, unit, rows, rounds)
        print(text, flush=True)
        with results.open("a") as file:
            file.write(text + "\n")
    failed = [it.name for _, _, rows in chosen.values() for it in rows if it.failure]
    sys.exit(f"not measured: {', '.join(failed)}" if failed else 0)


main()
