"""Draining into this process."""

from __future__ import annotations

import asyncq
from place import Place


class Process(Place):
    def test_calls_run_here_and_print_here_once(self) -> None:
        shop = self.module(
            "shop",
            """
            import os, subprocess

            @asyncq.function("events")
            def here():
                print("in", os.getpid(), os.getcwd(), asyncq.is_async(), asyncq.get_principal())
                subprocess.run(["true"])
            """,
        )
        import os

        with asyncq.login("zope.user"):
            job = shop.here.using(site="/").enqueue()
        self.assertEqual(self.process("events"), f"in {os.getpid()} / True zope.user\n")
        self.assertEqual(os.getcwd(), self.folder)
        self.assertEqual(self.asyncq("job", "log", str(job.id)), f"in {os.getpid()} / True zope.user\n")
        self.assertNotIn("ASYNCQ_JOB", os.environ)

    def test_functions_of_other_programs_run_as_always(self) -> None:
        self.asyncq("function", "add", "events", "shell", "--", "echo", "shell")
        asyncq.remote("events", "shell")()
        self.assertEqual(self.process(), "shell\n")

    def test_what_functions_do_raises_nothing_here(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef fails(): raise SystemExit(9)\n")
        job = shop.fails.enqueue()
        self.assertEqual(self.process("events"), "")
        self.assertEqual(job.state, "error")

    def test_a_processor_that_cannot_work_raises(self) -> None:
        with self.assertRaisesRegex(asyncq.Error, "no service `nowhere`"):
            self.process("nowhere")
        with self.assertRaisesRegex(asyncq.Error, "no service `evnts`; did you mean `events`"):
            self.process("evnts")

    def test_it_runs_neither_inside_a_function_nor_twice(self) -> None:
        shop = self.module(
            "shop",
            """
            import threading

            @asyncq.function("events")
            def inside():
                asyncq.process("events")

            @asyncq.function("events")
            def twice():
                raised = []
                def other():
                    try:
                        asyncq.process("events")
                    except asyncq.Error as error:
                        raised.append(str(error))
                thread = threading.Thread(target=other)
                thread.start()
                thread.join()
                return raised
            """,
        )
        inside, twice = shop.inside.enqueue(), shop.twice.enqueue()
        self.process("events")
        assert inside.error
        self.assertIn("cannot run inside a function", inside.error.message)
        self.assertIn("runs in this process already", twice.wait(5)[0])

    def test_other_threads_are_not_inside_the_call(self) -> None:
        shop = self.module(
            "shop",
            """
            import threading

            @asyncq.function("events")
            def f():
                seen = []
                thread = threading.Thread(target=lambda: seen.extend([asyncq.is_async(), asyncq.get_principal()]))
                thread.start()
                thread.join()
                return seen
            """,
        )
        job = shop.f.using(principal="zope.user").enqueue()
        self.process("events")
        self.assertEqual(job.wait(5), [False, None])

    def test_a_time_limit_ends_a_call(self) -> None:
        shop = self.module(
            "shop",
            """
            import asyncio, time

            @asyncq.function("events")
            def sleeps():
                try:
                    time.sleep(60)
                finally:
                    print("finally")

            @asyncq.function("events")
            async def waits():
                await asyncio.sleep(60)
            """,
        )
        jobs = [shop.sleeps.enqueue(), shop.waits.enqueue()]
        for name in ("shop.sleeps", "shop.waits"):
            self.asyncq("function", "set", "events", name, "--timeout", "2s")
        self.assertEqual(self.process("events"), "finally\n")
        self.assertEqual([job.error and job.error.kind for job in jobs], ["timeout", "timeout"])

    def test_a_folder_that_is_gone_cannot_be_run_in(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef f(): pass\n")
        job = shop.f.using(site="/nowhere").enqueue()
        self.process("events")
        assert job.error
        self.assertEqual(job.error.kind, "cannot-run")

    def test_how_much_is_done_can_be_limited(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef prints(n): print(n)\n")
        for n in range(3):
            shop.prints(n)
        self.assertEqual(self.process("events", max_jobs=1), "0\n")
        self.assertEqual(self.process("events", max_time=60), "1\n2\n")

    def test_conflicts_are_waited_for(self) -> None:
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def twice():
                if asyncq.current_job().attempt < 2:
                    raise asyncq.Conflict
                return "done"
            """,
        )
        job = shop.twice.enqueue()
        self.process("events", wait_retries=True)
        self.assertEqual(job.wait(5), "done")

    def test_calls_that_come_due_are_waited_for(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef prints(n): print(n)\n")
        self.asyncq("service", "add", "other")
        shop.prints.using(delay=0.3).enqueue(1)
        self.assertEqual(self.process("ev*", wait=60, max_jobs=1, grace=0, except_=["other"]), "1\n")
        shop.prints(2)
        self.assertEqual(self.process(except_=["ev*"], grace="5s", one_container=True), "")
        for options, kind, words in [
            ({"wait": 1, "wait_retries": True}, TypeError, "either `wait` or `wait_retries`"),
            ({"wait": 0}, ValueError, "wait is 0; it is at least a millisecond"),
            ({"grace": -1}, ValueError, "grace is -1"),
            ({"max_time": "50"}, asyncq.Error, "the unit is missing"),
            ({"wait": []}, TypeError, "wait is a number of seconds"),
        ]:
            with self.subTest(words), self.assertRaisesRegex(kind, words):
                self.process(**options)

    def test_calls_inside_a_call_run_here_and_are_recorded(self) -> None:
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def inner(a, b): print("Computing", a, "+", b, "=", a + b)

            @asyncq.function("events")
            def outer():
                print("Before")
                inner(1, 2)
                print("After")
            """,
        )
        job = shop.outer.enqueue()
        self.assertEqual(self.process("events"), "Before\nComputing 1 + 2 = 3\nAfter\n")
        self.assertEqual([child["parent"] for child in self.jobs()], [None, job.id])

    def test_control_c_puts_the_running_call_back(self) -> None:
        import os
        import signal
        import subprocess
        import sys

        self.write_module(
            "shop",
            """
            import time

            @asyncq.function("events")
            def sleeps():
                print("begun", flush=True)
                time.sleep(60)

            @asyncq.function("events")
            def prints():
                print("later")
            """,
        )
        path = os.pathsep.join([self.folder, os.environ["PYTHONPATH"]])
        script = "import asyncq, shop; shop.sleeps(); shop.prints(); asyncq.process('events')"
        self.asyncq("service", "set", "events", "--concurrency", "1")
        program = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )
        assert program.stdout
        self.assertEqual(program.stdout.readline(), "begun\n")
        os.killpg(program.pid, signal.SIGINT)
        printed, complaints = program.communicate(timeout=60)
        self.assertEqual((printed, program.returncode), ("", -signal.SIGINT), complaints)
        self.assertEqual([job["state"] for job in self.jobs()], ["queued", "queued"])
        self.assertEqual([job["crashes"] for job in self.jobs()], [0, 0])

    def test_a_coroutine_may_drain(self) -> None:
        import asyncio

        shop = self.module("shop", "@asyncq.function('events')\nasync def adds(a, b): return a + b\n")
        job = shop.adds.enqueue(2, 7)

        async def main() -> None:
            self.process("events")

        asyncio.run(main())
        self.assertEqual(job.result, 9)
