"""The worker as asyncq sees it: line by line."""

from __future__ import annotations

import glob
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
PROTOCOL = os.path.join(HERE, "..", "protocol")


class Conversations(unittest.TestCase):
    def test_the_worker_does_what_the_conversations_say(self) -> None:
        files = sorted(glob.glob(f"{PROTOCOL}/worker/*.txt"))
        self.assertGreater(len(files), 10)
        path = os.pathsep.join([HERE, os.environ["PYTHONPATH"]])
        command = [sys.executable, f"{PROTOCOL}/play.py", *files, "--", sys.executable, "-m", "asyncq.worker", "protocol_functions"]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": path})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Lines(unittest.TestCase):
    """A worker at the other end of a socket pair."""

    def start(self, source: str, *options: str) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        with open(f"{folder.name}/shop.py", "w") as file:
            file.write("import asyncq, os, sys, threading, time\n" + textwrap.dedent(source))
        self.socket, theirs = socket.socketpair()
        self.addCleanup(self.socket.close)
        self.socket.settimeout(30)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.addCleanup(self.lines.close)
        environment = {**os.environ, "ASYNCQ_WORKER": str(theirs.fileno())}
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "asyncq.worker", *options],
            cwd=folder.name, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self.addCleanup(self.worker.wait)
        self.addCleanup(self.worker.kill)
        self.hello = json.loads(self.lines.readline())["params"]

    def call(self, number: int, name: str, *args: Any) -> None:
        params = {
            "job": number, "attempt": 1, "token": "0" * 32, "service": "events", "function": f"shop.{name}", "args": args,
            "kwargs": {}, "principal": None, "site": "/", "deadline": None,
        }
        self.tell({"id": number, "method": "call", "params": params})

    def tell(self, message: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def answer(self) -> tuple[dict[str, Any], str]:
        """The next answer, and the output that came before it."""
        printed = ""
        while True:
            message = json.loads(self.lines.readline())
            if message.get("method") == "output":
                printed += message["params"]["text"]
            else:
                return message, printed

    def ends(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(self.worker.wait(30), 0)

    def test_calls_in_threads_run_at_the_same_time(self) -> None:
        self.start(
            """
            barrier = threading.Barrier(4)
            @asyncq.function("events")
            def meets():
                barrier.wait(30)
                print("meets", asyncq.current_job().id)
                return threading.get_ident()
            """,
            "--threads", "4",
        )
        self.assertEqual((self.hello["calls"], self.hello["cancel"]), (4, True))
        for number in range(1, 5):
            self.call(number, "meets")
        threads = set()
        printed: dict[int, str] = {}
        answered = 0
        while answered < 4:
            message = json.loads(self.lines.readline())
            if message.get("method") == "output":
                params = message["params"]
                printed[params["job"]] = printed.get(params["job"], "") + params["text"]
            else:
                threads.add(message["result"]["value"])
                answered += 1
        self.assertEqual(len(threads), 4)
        self.assertEqual(printed, {number: f"meets {number}\n" for number in range(1, 5)})
        self.ends()

    def test_a_thread_is_cancelled(self) -> None:
        self.start(
            """
            import asyncio
            @asyncq.function("events")
            def spins():
                try:
                    asyncq.current_job().progress(note="begun")
                    while True: time.sleep(0.01)
                finally:
                    print("finally")
            @asyncq.function("events")
            async def waits():
                try:
                    asyncq.current_job().progress(note="begun")
                    await asyncio.sleep(60)
                finally:
                    print("finally")
            @asyncq.function("events")
            def quick(): return 7
            """,
            "--threads", "2",
        )
        for number, name in ((1, "spins"), (2, "waits")):
            self.call(number, name)
            self.assertEqual(json.loads(self.lines.readline())["method"], "progress")
            self.tell({"method": "cancel", "params": {"job": number, "why": "cancelled"}})
            answer, printed = self.answer()
            self.assertEqual((answer["error"]["data"]["type"], printed), ("asyncq.Cancelled", "finally\n"))
        for number in (3, 4, 5):
            self.call(number, "quick")
            self.assertEqual(self.answer()[0]["result"]["value"], 7)
        self.ends()

    def test_on_sigterm_it_answers_what_it_has_read_and_leaves(self) -> None:
        for options in ((), ("--threads", "2")):
            self.start("@asyncq.function('events')\ndef quick(): return 7\n", *options)
            self.call(1, "quick")
            self.assertEqual(self.answer()[0]["result"]["value"], 7)
            self.worker.send_signal(signal.SIGTERM)
            self.assertEqual(self.worker.wait(30), 0)

    def test_sigterm_in_a_call_ends_the_call_alone(self) -> None:
        self.start(
            """
            @asyncq.function("events")
            def sleeps():
                try:
                    asyncq.current_job().progress(note="begun")
                    time.sleep(60)
                except Exception:
                    print("not this")
                finally:
                    print("finally")
            @asyncq.function("events")
            def quick(): return 7
            """
        )
        self.call(1, "sleeps")
        self.assertEqual(json.loads(self.lines.readline())["method"], "progress")
        self.worker.send_signal(signal.SIGTERM)
        answer, printed = self.answer()
        self.assertEqual((answer["error"]["data"]["type"], printed), ("asyncq.Cancelled", "finally\n"))
        self.call(2, "quick")
        self.assertEqual(self.answer()[0]["result"]["value"], 7)
        self.ends()

    def test_output_of_several_writers_is_whole(self) -> None:
        self.start(
            """
            import subprocess
            @asyncq.function("events")
            def prints(size):
                sys.stdout.write("ä" * size)
                sys.stdout.flush()
                subprocess.run(["printf", "%s", "ü" * 1000])
            """
        )
        for number, size in enumerate((1, 70_000, 1_500_000), 1):
            self.call(number, "prints", size)
            answer, printed = self.answer()
            self.assertEqual(answer["result"]["output"], [0, 0])
            self.assertEqual(printed, "ä" * size + "ü" * 1000)
        self.ends()

    def test_a_forked_child_does_not_answer(self) -> None:
        self.start(
            """
            @asyncq.function("events")
            def forks():
                pid = os.fork()
                if pid == 0:
                    return "child"
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            @asyncq.function("events")
            def raises():
                pid = os.fork()
                if pid == 0:
                    sys.exit(5)
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            """
        )
        self.call(1, "forks")
        self.assertEqual(self.answer()[0]["result"]["value"], 0)
        self.call(2, "raises")
        self.assertEqual(self.answer()[0]["result"]["value"], 5)
        self.ends()


if __name__ == "__main__":
    unittest.main()
