"""The child through which a process talks to the store."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import asyncq
from asyncq import _rpc
from place import Place

NOOP = "@asyncq.function('events')\ndef noop(n=0): pass\n"


def child() -> _rpc.Child:
    [child] = _rpc._children.values()
    return child


class Child(Place):
    def test_threads_share_one_child(self) -> None:
        shop = self.module("shop", NOOP)

        def calls(first: int) -> None:
            for n in range(first, first + 50):
                shop.noop(n)

        threads = [threading.Thread(target=calls, args=(first,)) for first in range(0, 400, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(job["args"] for job in self.jobs()), sorted([n] for n in range(400)))

    def test_a_child_that_died_while_nobody_waited_is_replaced(self) -> None:
        shop = self.module("shop", NOOP)
        shop.noop(1)
        os.kill(child().process.pid, signal.SIGKILL)
        child().process.wait()
        shop.noop(2)
        self.assertEqual([job["args"] for job in self.jobs()], [[1], [2]])

    def test_a_call_over_which_the_child_dies_is_unanswered(self) -> None:
        shop = self.module("shop", NOOP)
        shop.noop(1)
        os.kill(child().process.pid, signal.SIGSTOP)

        def kill() -> None:
            while not child().waiting:
                time.sleep(0.01)
            os.kill(child().process.pid, signal.SIGKILL)

        for key in (None, "k"):
            killer = threading.Thread(target=kill)
            killer.start()
            if key is None:
                with self.assertRaisesRegex(asyncq.Unanswered, "was killed by signal 9.*a key"):
                    shop.noop(2)
            else:
                shop.noop.using(key=key).enqueue(3)
            killer.join()
            if key is None:
                shop.noop(4)
                os.kill(child().process.pid, signal.SIGSTOP)
        self.assertEqual(sorted(job["args"] for job in self.jobs()), [[1], [3], [4]])

    def test_no_answered_call_is_lost_when_children_are_killed(self) -> None:
        full = os.environ.get("ASYNCQ_FAULTS", "").startswith("full")
        calls, kills = (2000, 300) if full else (100, 15)
        shop = self.module("shop", NOOP)
        shop.noop(-1)
        answered: list[int] = []
        keyed: list[int] = []

        def client(first: int) -> None:
            for n in range(first, first + calls):
                try:
                    if n % 2:
                        shop.noop.using(key=f"k-{n}").enqueue(n)
                        keyed.append(n)
                    else:
                        shop.noop(n)
                        answered.append(n)
                except asyncq.Unanswered:
                    pass

        threads = [threading.Thread(target=client, args=(first * calls,)) for first in range(8)]
        for thread in threads:
            thread.start()
        done = 0
        while any(thread.is_alive() for thread in threads) and done < kills:
            time.sleep(0.03)
            for one in list(_rpc._children.values()):
                if one.process.poll() is None:
                    one.process.kill()
                    done += 1
        for thread in threads:
            thread.join(60)
        self.assertFalse([thread for thread in threads if thread.is_alive()])
        with sqlite3.connect(self.db) as db:
            rows = [int(args[1:-1]) for (args,) in db.execute("SELECT args FROM asyncq_job")]
        db.close()
        counts = {n: rows.count(n) for n in set(rows)}
        self.assertEqual([n for n in answered + keyed if n not in counts], [])
        self.assertEqual([n for n in counts if n % 2 and n > 0 and counts[n] > 1], [])
        self.assertGreater(done, 3)

    def test_a_signal_handler_is_refused_and_blocks_nobody(self) -> None:
        shop = self.module("shop", NOOP)
        job = shop.noop.enqueue(1)
        refused = []

        def handler(*_: object) -> None:
            try:
                shop.noop(2)
            except asyncq.Error as error:
                refused.append(str(error))

        before = signal.signal(signal.SIGALRM, handler)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with self.assertRaises(TimeoutError):
            job.wait(0.5)
        self.assertIn("a signal handler cannot call", refused[0])
        shop.noop(3)

    def test_a_forked_process_has_a_child_of_its_own(self) -> None:
        shop = self.module("shop", NOOP)
        shop.noop(1)
        before = child().process.pid
        pid = os.fork()
        if pid == 0:
            try:
                shop.noop(2)
                os._exit(0 if child().process.pid != before else 3)
            except BaseException:
                os._exit(4)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        shop.noop(3)
        self.assertEqual(child().process.pid, before)
        self.assertEqual([job["args"] for job in self.jobs()], [[1], [2], [3]])

    def test_it_ends_with_its_process_and_survives_control_c(self) -> None:
        self.module("shop", NOOP)
        script = "import shop, os; shop.noop(); print([*__import__('asyncq')._rpc._children.values()][0].process.pid); os.getsid(0)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=self.environment())
        self.assertEqual(done.stderr, "")
        with self.assertRaises(ProcessLookupError):
            os.kill(int(done.stdout), 0)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join([self.folder, os.environ.get("PYTHONPATH", "")])}

    def test_another_store_is_used_when_it_is_chosen(self) -> None:
        shop = self.module("shop", NOOP)
        shop.noop(1)
        os.environ["ASYNCQ_DB"] = "other.db"
        self.asyncq("service", "add", "events")
        shop.noop(2)
        self.assertEqual([job["args"] for job in self.jobs()], [[2]])
        os.environ["ASYNCQ_DB"] = self.db
        self.assertEqual([job["args"] for job in self.jobs()], [[1]])

    def test_the_import_loads_little(self) -> None:
        script = "import sys, asyncq; print([m for m in ('asyncio', 'sqlite3', 'subprocess', 'inspect') if m in sys.modules])"
        done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "[]\n")
