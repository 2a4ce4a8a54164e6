"""A web server that writes an order and queues its mail in one transaction, while everything is killed at random.

`ASYNCQ_FAULTS=full` makes it long.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

from asyncq import _config
from place import Place

APPLICATION = """
    import os, sqlite3

    @asyncq.function("events")
    def mail(order):
        with sqlite3.connect(os.environ["ASYNCQ_DB"], timeout=30) as db:
            db.execute("INSERT INTO mails VALUES (?)", (order,))

    @asyncq.function("events")
    def before(): pass

    before()                    # in the server's first process, before it forks

    def application(environ, start_response):
        order = int(environ["PATH_INFO"].strip("/"))
        db = sqlite3.connect(os.environ["ASYNCQ_DB"], timeout=30, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO orders VALUES (?)", (order,))
            mail.using(db).enqueue(order)
            if order % 4 == 0:
                db.execute("ROLLBACK")
            else:
                db.execute("COMMIT")
            if order % 8 == 1:
                before.using(key=f"before-{order}").enqueue()       # outside of the transaction, by the child
        finally:
            db.close()
        start_response("200 OK", [])
        return [b"done"]
"""


class Gunicorn(Place):
    def test_there_is_a_mail_for_each_order_and_for_no_other(self) -> None:
        full = os.environ.get("ASYNCQ_FAULTS", "").startswith("full")
        requests, pause = (3000, 0.7) if full else (600, 0.3)
        db = sqlite3.connect(self.db, timeout=30)
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE mails (id INTEGER)")
        self.write_module("shop", APPLICATION)
        numbers = iter(range(1, requests + 1))
        acknowledged: set[int] = set()
        lock = threading.Lock()
        kills = 0

        def client() -> None:
            while True:
                with lock:
                    order = next(numbers, None)
                if order is None:
                    return
                while True:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    try:
                        connection.request("GET", f"/{order}")
                        if connection.getresponse().status == 200:
                            with lock:
                                acknowledged.add(order)
                        break
                    except ConnectionRefusedError:
                        time.sleep(0.02)
                    except (OSError, http.client.HTTPException):
                        break  # the server was killed while it answered
                    finally:
                        connection.close()

        chance = random.Random(int(os.environ.get("ASYNCQ_SEED", "0")) or None)
        port = free_port()
        server = self.server(port)
        # Daemons, so that a test that fails does not wait for them.
        clients = [threading.Thread(target=client, daemon=True) for _ in range(8)]
        for thread in clients:
            thread.start()
        while any(thread.is_alive() for thread in clients):
            clients[0].join(pause)
            victims = [pid for pid in descendants(server.pid) if pid != server.pid]
            if chance.random() < 0.2 or not victims:
                kill_all([*victims, server.pid] if chance.random() < 0.5 else [server.pid])
                server.wait()
                # Workers whose master was killed notice it, and end.
                self.wait_for(lambda: not port_is_open(port), "the old server goes")
                server = self.server(port)
            else:
                kill_all([chance.choice(victims)])
            kills += 1
            if chance.random() < 0.3:
                self.asyncq("process", "--max-time", "200ms", code=None)
        for thread in clients:
            thread.join()
        server.terminate()
        server.wait()
        self.wait_for(lambda: not rpc_children(self.db), "all children end with their server")
        self.drain("--wait-retries")
        orders = {row[0] for row in db.execute("SELECT id FROM orders")}
        mails = {row[0] for row in db.execute("SELECT id FROM mails")}
        states = dict(db.execute("SELECT state, count(*) FROM asyncq_job GROUP BY state"))
        db.close()
        self.assertEqual(set(states), {"completed"})
        self.assertEqual(mails, orders)
        self.assertEqual({order for order in acknowledged if order % 4} - orders, set())
        self.assertFalse([order for order in orders if order % 4 == 0])
        self.assertGreater(len(orders), requests // 4)
        self.assertGreater(kills, 1)
        print(f"{kills} kills, {len(acknowledged)} of {requests} requests answered, {len(orders)} orders, {len(mails)} mails")

    def server(self, port: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([self.folder, os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "gunicorn", "shop:application", "--preload", "--bind", f"127.0.0.1:{port}"]
        command += ["--workers", "2", "--threads", "4", "--log-level", "error"]
        with open("server.log", "a") as log:
            server = subprocess.Popen(command, env={**environment, "ASYNCQ_BIN": _config.find_binary()}, stderr=log)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.wait_for(lambda: port_is_open(port) or server.poll() is not None, "the server listens")
        if server.poll() is not None:
            with open("server.log") as log:
                self.fail(f"the server has ended with {server.returncode}:\n{log.read()}")
        return server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kill_all(processes: list[int]) -> None:
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def descendants(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    found += map(int, file.read().split())
        except OSError:
            pass
    return found


def rpc_children(db: str) -> list[int]:
    """The processes `asyncq rpc` of this store."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if b"rpc" in words and db.encode() in words:
                found.append(int(entry))
    return found
