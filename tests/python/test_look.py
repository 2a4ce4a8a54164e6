"""Looking at jobs and services, waiting for them, and pausing them."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import subprocess
import unittest

import asyncq
from asyncq import _config
from place import Place

SHOP = """
    import os, sys, time

    @asyncq.function("events")
    def prints(n):
        print("to", n)
        print("no", n, file=sys.stderr)
        return n

    @asyncq.function("events")
    def fails():
        raise ValueError("no")

    @asyncq.function("events")
    def waits(name):
        open(name + ".begun", "w").close()
        while not os.path.exists(name):
            time.sleep(0.02)
"""


class Look(Place):
    def start(self, *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([_config.find_binary(), "-q", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        return process

    def test_a_job_is_called_again(self) -> None:
        shop = self.module("shop", SHOP)
        job = shop.prints.enqueue(1)
        self.drain()
        again, other = job.rerun(), job.rerun(args=["x"])
        self.assertEqual(self.drain(), "to 1\nto x\n")
        self.assertEqual((again.wait(5), other.wait(5)), (1, "x"))
        held = shop.prints.using(hold=True).enqueue(2)
        held.rerun(kwargs={})
        held.refresh()
        self.assertEqual(held.state, "cancelled")
        with self.assertRaisesRegex(TypeError, "args is a list, not 'x'"):
            job.rerun(args="x")
        with self.assertRaisesRegex(TypeError, "except_ is a list"):
            asyncq.status(except_="ev*")
        with self.assertRaisesRegex(TypeError, "argument 1 of `job 1`"):
            job.rerun(args=[{1}])

    def test_the_log_of_a_job(self) -> None:
        shop = self.module("shop", SHOP)
        job = shop.prints.enqueue(1)
        self.assertEqual(job.log(), asyncq.Log(None, False, [], 0))
        self.drain()
        log = job.log()
        self.assertEqual((log.attempt, log.complete, log.out, log.err, log.dropped), (1, True, "to 1\n", "no 1\n", 0))
        self.assertEqual(job.log(1), log)
        with self.assertRaisesRegex(asyncq.Error, "job 1 has no attempt 2"):
            job.log(2)

    def test_a_job_is_followed_to_its_end(self) -> None:
        shop = self.module("shop", SHOP)
        job, failing = shop.prints.enqueue(7), shop.fails.enqueue()
        process = self.start("process")
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(job.follow(), 7)
        self.assertEqual((out.getvalue(), err.getvalue()), ("to 7\n", "no 7\n"))
        with contextlib.redirect_stderr(io.StringIO()) as err, self.assertRaisesRegex(asyncq.Failed, "ValueError: no"):
            failing.follow()
        self.assertIn("Traceback", err.getvalue())
        process.wait()
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaisesRegex(asyncq.Error, "there is no job 99"):
            asyncq.job(99).follow()

    def test_why_a_job_does_not_run(self) -> None:
        shop = self.module("shop", SHOP)
        job = shop.prints.using(hold=True).enqueue(1)
        told = job.explain()
        self.assertEqual((told.id, told.service, told.function, told.state, told.stderr), (1, "events", "shop.prints", "held", []))
        self.assertEqual(told.reasons[0], asyncq.Reason("held", "it is held until somebody starts it", "asyncq job start 1"))
        failing = shop.fails.enqueue()
        self.drain()
        told = failing.explain()
        self.assertEqual((told.reasons[0].code, told.stderr[-1]), ("error", "ValueError: no"))

    def test_an_overview(self) -> None:
        shop = self.module("shop", SHOP)
        shop.prints(1)
        shop.prints.using(delay=60).enqueue(2)
        self.asyncq("service", "add", "other")
        shown = asyncq.status("ev*", except_=["x*"], exact=True)
        [service] = shown.services
        self.assertEqual((service.name, service.concurrency, service.queued, service.delayed, service.at_least), ("events", 4, 1, 1, []))
        assert service.next_due_at and service.oldest_due_at
        self.assertLess(service.oldest_due_at, service.next_due_at)
        self.assertLess(abs(shown.at - datetime.datetime.now(datetime.timezone.utc)), datetime.timedelta(minutes=5))
        self.assertEqual((shown.paused, shown.processors, shown.schedules), (False, [], 0))
        self.assertEqual([it.name for it in asyncq.status().services], ["events", "other"])
        self.assertEqual(asyncq.check(), [])
        self.assertEqual(asyncq.check(max_age=datetime.timedelta(hours=1), max_errors=0), [])
        with self.assertRaisesRegex(asyncq.Error, "did you mean `events`"):
            asyncq.status("evnts")

    def test_every_member_is_in_an_overview(self) -> None:
        self.module("shop", SHOP).prints(1)
        import dataclasses

        shown = json.loads(self.asyncq("status", "--json"))
        for members, kind in [(shown, asyncq.Overview), (shown["services"][0], asyncq.ServiceOverview)]:
            self.assertEqual(set(members), {field.name for field in dataclasses.fields(kind)})

    def test_the_first_of_several_jobs_and_a_service_are_waited_for(self) -> None:
        shop = self.module("shop", SHOP)
        first, second = shop.waits.enqueue("first"), shop.waits.enqueue("second")
        for wait in (lambda: asyncq.wait_any([first, second], timeout=0.05), lambda: asyncq.wait_service("events", timeout=0)):
            with self.assertRaises(TimeoutError):
                wait()
        process = self.start("process")
        open("second", "w").close()
        ended = asyncq.wait_any([first, second], timeout=60)
        self.assertEqual((ended is second, ended.state), (True, "completed"))
        with self.assertRaisesRegex(TimeoutError, "job 1 still runs"):
            asyncq.pause(wait=True, timeout=0.05)
        asyncq.resume()
        open("first", "w").close()
        asyncq.wait_service("events", timeout=60)
        self.assertEqual(first.state, "completed")
        process.wait()
        with self.assertRaisesRegex(ValueError, "no jobs to wait for"):
            asyncq.wait_any([])
        with self.assertRaisesRegex(asyncq.Error, "there is no service `evnts`"):
            asyncq.wait_service("evnts")

    def test_the_store_and_services_are_paused(self) -> None:
        shop = self.module("shop", SHOP)
        asyncq.pause("new release", wait=True, timeout=60)
        shop.prints(1)
        self.assertEqual(self.drain(), "")
        self.assertEqual(asyncq.check(), ["the store is paused: new release; `asyncq resume` ends the pause"])
        self.assertEqual((asyncq.status().paused, asyncq.status().paused_why), (True, "new release"))
        self.assertEqual(asyncq.pause_services("ev*", why="mended"), 1)
        asyncq.resume()
        self.assertEqual(self.drain(), "")
        self.assertEqual(asyncq.status().services[0].paused_why, "mended")
        self.assertEqual(asyncq.resume_services("events"), 1)
        self.assertEqual(self.drain(), "to 1\n")
        with self.assertRaisesRegex(TypeError, "needs wait=True"):
            asyncq.pause(timeout=5)
        with self.assertRaisesRegex(asyncq.Error, "`services` is empty"):
            asyncq.pause_services()

    def test_a_service_keeps_its_jobs_for_a_time(self) -> None:
        asyncq.define_service("mails", keep=datetime.timedelta(days=30), keep_errors=86400)
        asyncq.define_service("mails", concurrency=2)
        shown = json.loads(self.asyncq("service", "show", "mails", "--json"))
        self.assertEqual((shown["keep"], shown["keep_errors"], shown["concurrency"]), (30 * 86400, 86400, 2))
        asyncq.define_service("mails", keep="forever")
        shown = json.loads(self.asyncq("service", "show", "mails", "--json"))
        self.assertEqual((shown["keep"], shown["keep_errors"]), (None, 86400))
        with self.assertRaisesRegex(TypeError, "keep is a number of seconds"):
            asyncq.define_service("mails", keep="30d")  # type: ignore[arg-type]
        with self.assertRaisesRegex(asyncq.Error, "`keep_errors` has to be a number of seconds"):
            asyncq.define_service("mails", keep_errors=0)


if __name__ == "__main__":
    unittest.main()
