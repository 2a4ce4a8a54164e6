"""Functions in workers: `python -m asyncq.worker`."""

from __future__ import annotations

import os
import subprocess

import asyncq
from asyncq import _config
from place import Place


class Worker(Place):
    def test_the_output_of_each_call_is_its_own(self) -> None:
        shop = self.module(
            "shop",
            """
            import os, subprocess, sys

            @asyncq.function("events")
            def prints(n):
                print("out", n)
                subprocess.run(["sh", "-c", f"echo program {n}; echo oops {n} >&2"])
                print("err", n, file=sys.stderr)
                os.write(1, b"caf\\xc3")
                sys.stdout.flush()
                os.write(1, b"\\xa9\\n")
            """,
        )
        self.asyncq("service", "set", "events", "--concurrency", "1")
        jobs = [shop.prints.enqueue(n) for n in range(20)]
        self.drain()
        for n, job in enumerate(jobs):
            log = self.asyncq("job", "log", str(job.id))
            self.assertEqual(sorted(log.split("\n")), sorted(["", f"out {n}", f"program {n}", "café"]), log)

    def test_errors_tell_type_and_traceback(self) -> None:
        shop = self.module(
            "shop",
            """
            class OrderLost(Exception): pass

            @asyncq.function("events")
            def fails():
                raise OrderLost("no order 7")

            @asyncq.function("events")
            def leaves():
                raise SystemExit(3)

            @asyncq.function("events")
            def no_json():
                return {1}
            """,
        )
        fails, leaves, no_json = shop.fails.enqueue(), shop.leaves.enqueue(), shop.no_json.enqueue()
        self.drain()
        error = fails.error
        assert error and error.traceback
        self.assertEqual((error.kind, error.message, error.type), ("error", "shop.OrderLost: no order 7", "shop.OrderLost"))
        self.assertIn('in fails\n    raise OrderLost("no order 7")', error.traceback)
        self.assertNotIn("_runner.py", error.traceback)
        self.assertEqual(self.errors(fails.id), error.traceback)
        with self.assertRaisesRegex(asyncq.Failed, "no order 7"):
            fails.wait()
        self.assertEqual([job.state for job in (leaves, no_json)], ["error", "error"])
        assert no_json.error
        self.assertIn("the value of the function is not JSON", no_json.error.message)
        self.assertEqual(no_json.error.type, "TypeError")

    def test_conflicts_are_tried_three_times_in_all(self) -> None:
        shop = self.module(
            "shop",
            """
            import sqlite3

            def tries(name):
                with open(name, "a") as file:
                    file.write("x")

            @asyncq.function("events")
            def conflicts():
                tries("conflicts")
                raise asyncq.Conflict("write conflict", pause=0.01)

            @asyncq.function("events")
            def locked():
                tries("locked")
                raise sqlite3.OperationalError("database is locked")

            class Busy(Exception): pass
            asyncq.configure(conflicts=[Busy])

            @asyncq.function("events")
            def busy():
                tries("busy")
                raise RuntimeError from Busy()

            @asyncq.function("events")
            def serialization():
                tries("serialization")
                raise type("SerializationFailure", (Exception,), {"__module__": "psycopg.errors"})("could not serialize")

            @asyncq.function("events")
            def fails():
                tries("fails")
                raise RuntimeError("once")
            """,
        )
        jobs = [shop.conflicts.enqueue(), shop.locked.enqueue(), shop.busy.enqueue(), shop.serialization.enqueue(), shop.fails.enqueue()]
        self.drain("--wait-retries")
        for name, times in [("conflicts", "xxx"), ("locked", "xxx"), ("busy", "xxx"), ("serialization", "xxx"), ("fails", "x")]:
            with open(name) as file:
                self.assertEqual(file.read(), times, name)
        self.assertEqual({job.state for job in jobs}, {"error"})
        assert jobs[0].error
        self.assertIn("write conflict", jobs[0].error.message)

    def test_a_function_may_ask_to_run_later(self) -> None:
        shop = self.module(
            "shop",
            """
            from datetime import datetime, timedelta, timezone

            @asyncq.function("events")
            def later(when):
                if asyncq.current_job().attempt > 1:
                    return "at last"
                raise asyncq.Later(0.1, "HTTP 429") if when == "soon" else asyncq.Later(datetime.now(timezone.utc) + timedelta(days=1))
            """,
        )
        jobs = [shop.later.enqueue("soon"), shop.later.enqueue("tomorrow")]
        self.drain("--wait", "1m")
        self.assertEqual([job.state for job in jobs], ["completed", "delayed"])
        self.assertEqual(jobs[0].result, "at last")
        for pause in (-1, 367 * 86400, float("nan")):
            with self.assertRaises(ValueError):
                asyncq.Later(pause)
        self.assertEqual(str(asyncq.Later(600)), "it asks to run 600 seconds later")

    def test_a_function_that_is_gone_cannot_run(self) -> None:
        import os

        shop = self.module("shop", "@asyncq.function('events')\ndef f(): pass\n")
        gone = self.module("gone", "@asyncq.function('events')\ndef f(): pass\n")
        first, second = shop.f.enqueue(), gone.f.enqueue()
        os.remove("gone.py")
        with open("shop.py", "w") as file:
            file.write("f = 7\n")
        self.drain()
        assert first.error and second.error
        self.assertEqual((first.error.kind, second.error.kind), ("cannot-run", "cannot-run"))
        self.assertEqual(first.error.message, "`shop.f` is not decorated with `asyncq.function`")
        self.assertIn("the module `gone` cannot be imported", second.error.message)

    def test_calls_inside_a_call_run_at_once_and_are_recorded(self) -> None:
        self.asyncq("function", "add", "events", "shell", "--", "sh", "-c", 'echo "shell $1"; echo 7 > "$ASYNCQ_RESULT"', "sh")
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def add(a, b):
                return a + b

            @asyncq.function("events")
            def fails():
                raise ValueError("inner")

            @asyncq.function("events")
            def outer():
                try:
                    fails()
                except ValueError as error:
                    caught = str(error)
                later = add.enqueue(5, 6)
                return [add(add(1, 2), 3), caught, asyncq.remote("events", "shell")("word"), later.id]

            @asyncq.function("events")
            def recursion(n):
                return recursion(n + 1)
            """,
        )
        job = shop.outer.using(principal="zope.user").enqueue()
        self.drain()
        *value, later = job.wait(5)
        self.assertEqual(value, [6, "inner", 7])
        self.assertEqual(asyncq.job(later).wait(5), 11)
        children = [child for child in self.jobs() if child["parent"] == job.id]
        told = sorted((child["function"], child["immediate"], child["state"], child["principal"]) for child in children)
        self.assertEqual(
            told,
            [
                ("shell", True, "completed", "zope.user"),
                ("shop.add", False, "completed", "zope.user"),
                ("shop.add", True, "completed", "zope.user"),
                ("shop.add", True, "completed", "zope.user"),
                ("shop.fails", True, "error", "zope.user"),
            ],
        )
        deep = shop.recursion.enqueue(0)
        self.drain()
        assert deep.error
        self.assertIn("at most 32 deep", deep.error.message)

    def test_many_calls_inside_a_call_are_counted(self) -> None:
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def add(a, b):
                return a + b

            @asyncq.function("events")
            def outer():
                return sum(add(n, 1) for n in range(250))
            """,
        )
        job = shop.outer.enqueue()
        self.drain()
        self.assertEqual(job.wait(5), sum(range(1, 251)))
        self.assertEqual(len(self.jobs()), 101)
        self.assertIn("150", self.asyncq("job", "show", str(job.id)))

    def test_concurrent_calls_inside_a_call_make_one_tree(self) -> None:
        shop = self.module(
            "shop",
            """
            import asyncio

            @asyncq.function("events")
            async def leaf(n):
                await asyncio.sleep(0)

            @asyncq.function("events")
            async def branch(n):
                await asyncio.sleep(0.01)
                await leaf(n)
                if n == 3:
                    await deeper(1)

            @asyncq.function("events")
            async def deeper(n):
                await deeper(n + 1)

            @asyncq.function("events")
            async def root():
                done = await asyncio.gather(branch(1), branch(2), branch(3), return_exceptions=True)
                return str(done[2])
            """,
        )
        job = shop.root.enqueue()
        self.drain()
        self.assertIn("at most 32 deep", job.wait(5))
        jobs = {it["id"]: it for it in self.jobs()}
        leaves = {tuple(it["args"]): jobs[it["parent"]] for it in jobs.values() if it["function"] == "shop.leaf"}
        told = {args: (parent["function"], tuple(parent["args"])) for args, parent in leaves.items()}
        self.assertEqual(told, {(n,): ("shop.branch", (n,)) for n in (1, 2, 3)})

    def test_a_call_in_an_event_loop_has_its_own_job(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\nasync def who(): return asyncq.get_principal()\n")
        self.asyncq("service", "set", "events", "--concurrency", "1")
        jobs = [shop.who.using(principal=name).enqueue() for name in ("root", "mallory")]
        self.drain()
        self.assertEqual([job.wait(5) for job in jobs], ["root", "mallory"])

    def test_a_stray_sigterm_costs_no_job(self) -> None:
        shop = self.module(
            "shop",
            """
            import os, signal, time

            @asyncq.function("events")
            def killed():
                if asyncq.current_job().attempt == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(60)
                return asyncq.current_job().attempt
            """,
        )
        job = shop.killed.enqueue()
        self.drain("--wait-retries")
        self.assertEqual(job.wait(5), 2)

    def test_the_warning_of_a_kept_definition_names_the_call(self) -> None:
        import asyncio

        shop = self.module(
            "shop", "@asyncq.function('events')\ndef f(): pass\n@asyncq.function('events')\nasync def g(): pass\n"
        )
        for name in ("shop.f", "shop.g"):
            self.asyncq("function", "add", "events", name, "--", "echo")
        with self.assertWarns(RuntimeWarning) as seen:
            shop.f()
        self.assertEqual(seen.filename, __file__)

        async def main() -> None:
            await shop.g()

        with self.assertWarns(RuntimeWarning) as seen:
            asyncio.run(main())
        self.assertEqual(seen.filename, __file__)

    def test_a_shell_function_calls_python_which_calls_python_and_shell(self) -> None:
        self.asyncq("function", "add", "events", "leaf", "--", "echo", "leaf")
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def inner(): print("inner")

            @asyncq.function("events")
            def middle():
                inner()
                asyncq.remote("events", "leaf")()
            """,
        )
        asyncq.register(shop)
        import asyncq._config as config

        self.asyncq("function", "add", "events", "top", "--", "sh", "-c", f"{config.find_binary()} enqueue events shop.middle")
        top = asyncq.remote("events", "top").enqueue()
        self.assertEqual(self.drain(), "inner\nleaf\n")
        parents = {job["function"]: job["parent"] for job in self.jobs()}
        numbers = {job["function"]: job["id"] for job in self.jobs()}
        self.assertEqual(
            parents,
            {"top": None, "shop.middle": top.id, "shop.inner": numbers["shop.middle"], "leaf": numbers["shop.middle"]},
        )

    def test_a_call_that_has_to_end_runs_its_finally(self) -> None:
        shop = self.module(
            "shop",
            """
            import asyncio, time

            @asyncq.function("events")
            def sleeps():
                try:
                    open("sleeps", "w").close()
                    time.sleep(60)
                finally:
                    print("finally", asyncq.current_job().cancelled)

            @asyncq.function("events")
            async def waits():
                try:
                    open("waits", "w").close()
                    await asyncio.sleep(60)
                finally:
                    print("at last")
            """,
        )
        jobs = {"sleeps": shop.sleeps.enqueue(), "waits": shop.waits.enqueue()}
        processor = subprocess.Popen([_config.find_binary(), "process"], stdout=subprocess.PIPE, text=True)
        for name, job in jobs.items():
            self.wait_for(lambda: os.path.exists(name), f"`{name}` has begun")
            job.cancel()
        printed, _ = processor.communicate(timeout=60)
        self.assertEqual(sorted(printed.splitlines()), ["at last", "finally True"])
        self.assertEqual([job.state for job in jobs.values()], ["cancelled", "cancelled"])

    def test_asynchronous_functions(self) -> None:
        import asyncio

        shop = self.module(
            "shop",
            """
            import asyncio

            @asyncq.function("events")
            async def inner(n):
                await asyncio.sleep(0)
                return n + 1

            @asyncq.function("events")
            async def outer(n):
                return sum(await asyncio.gather(inner(n), inner(n + 1)))
            """,
        )

        async def main() -> None:
            self.assertIsNone(await shop.outer(1))
            job = await shop.outer.aenqueue(2)
            self.drain()
            self.assertEqual(job.wait(5), 7)

        asyncio.run(main())
        self.assertEqual([job["state"] for job in self.jobs() if job["parent"] is None], ["completed", "completed"])

    def test_progress(self) -> None:
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def counts():
                asyncq.current_job().progress(done=3, of=10, note="thumbnails")
                return asyncq.current_job().attempt
            """,
        )
        job = shop.counts.enqueue()
        self.drain()
        self.assertEqual(job.wait(5), 1)
