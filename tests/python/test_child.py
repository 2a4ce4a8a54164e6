"""The child through which a process talks to the store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import asyncq
from asyncq import _rpc
from place import Place

NOOP = "@asyncq.function('events')\ndef noop(n=0): pass\n"


def child() -> _rpc.Child:
    assert _rpc._child
    return _rpc._child


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

    def test_a_dead_child_is_replaced(self) -> None:
        shop = self.module("shop", NOOP)
        shop.noop(1)
        os.kill(child().process.pid, signal.SIGKILL)
        child().process.wait()
        with self.assertRaisesRegex(asyncq.Unanswered, "was killed by signal 9"):
            shop.noop(2)
        shop.noop(3)
        os.kill(child().process.pid, signal.SIGKILL)
        child().process.wait()
        shop.noop.using(key="k").enqueue(4)
        self.assertEqual([job["args"] for job in self.jobs()], [[1], [3], [4]])

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
        script = "import shop, os; shop.noop(); print(__import__('asyncq')._rpc._child.process.pid); os.getsid(0)"
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
