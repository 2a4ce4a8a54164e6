"""What a call of a decorated function does."""

from __future__ import annotations

import datetime
import unittest
import warnings

import asyncq
from place import Place

HEAVY = """
    @asyncq.function(service="events")
    def heavy_computing(a, b):
        print("Computing", a, "+", b, "=", a + b)
        return a + b
"""


class Calls(Place):
    def test_a_call_is_queued_and_runs_in_a_worker(self) -> None:
        shop = self.module("shop", HEAVY)
        self.assertIsNone(shop.heavy_computing(2, 7))
        self.assertEqual(self.drain(), "Computing 2 + 7 = 9\n")
        [job] = self.jobs()
        self.assertEqual((job["function"], job["state"], job["result"]), ("shop.heavy_computing", "completed", 9))

    def test_the_function_itself_is_there(self) -> None:
        shop = self.module("shop", HEAVY)
        self.assertEqual(shop.heavy_computing.undecorated(2, 7), 9)
        self.assertEqual((shop.heavy_computing.service, shop.heavy_computing.name), ("events", "shop.heavy_computing"))
        self.assertEqual(shop.heavy_computing.__name__, "heavy_computing")

    def test_a_job_tells_what_became_of_it(self) -> None:
        shop = self.module("shop", HEAVY)
        job = shop.heavy_computing.enqueue(2, 7)
        self.assertEqual(job.state, "queued")
        with self.assertRaisesRegex(asyncq.Error, "has not ended: it is queued"):
            job.result  # noqa: B018
        with self.assertRaises(TimeoutError):
            job.wait(timeout=0.05)
        self.drain()
        self.assertEqual((job.wait(timeout=5), job.state, job.result, job.error), (9, "completed", 9, None))

    def test_a_job_can_be_cancelled_started_and_retried(self) -> None:
        shop = self.module("shop", HEAVY)
        job = shop.heavy_computing.using(hold=True).enqueue(2, 7)
        self.assertEqual(job.state, "held")
        job.start()
        self.assertEqual(job.state, "queued")
        job.cancel()
        self.assertEqual(job.state, "cancelled")
        with self.assertRaisesRegex(asyncq.Failed, f"job {job.id} was cancelled"):
            job.wait()
        job.retry()
        self.drain()
        job.refresh()
        self.assertEqual(job.result, 9)

    def test_calls_wait_for_each_other(self) -> None:
        shop = self.module("shop", HEAVY)
        first = shop.heavy_computing.using(lane="gpu").enqueue(1, 1)
        second = shop.heavy_computing.using(lane="gpu").enqueue(2, 2)
        third = shop.heavy_computing.using(after=[first, second.id]).enqueue(3, 3)
        fourth = shop.heavy_computing.using(after_any=third).enqueue(4, 4)
        never = shop.heavy_computing.using(after_failed=fourth).enqueue(5, 5)
        self.assertEqual([job.state for job in (first, second, third, fourth)], ["queued", "blocked", "blocked", "blocked"])
        self.assertEqual([line.split()[-1] for line in self.drain().splitlines()], ["2", "4", "6", "8"])
        never.refresh()
        self.assertEqual(never.state, "cancelled")
        with self.assertRaisesRegex(asyncq.Error, "there is no job 99 to wait for"):
            shop.heavy_computing.using(after=99).enqueue(6, 6)

    def test_a_call_expires_and_a_key_has_a_lifetime(self) -> None:
        shop = self.module("shop", HEAVY)
        late = shop.heavy_computing.using(expires=datetime.timedelta(milliseconds=1)).enqueue(1, 1)
        once = {"key": "reindex", "key_until": "started", "if_taken": "replace"}
        first = shop.heavy_computing.using(**once).enqueue(2, 2)
        self.assertEqual(shop.heavy_computing.using(**once).enqueue(3, 3).id, first.id)
        self.assertEqual(self.drain(), "Computing 3 + 3 = 6\n")
        late.refresh()
        self.assertEqual((late.state, late.error and late.error.kind), ("cancelled", "expired"))
        self.assertNotEqual(shop.heavy_computing.using(**once).enqueue(4, 4).id, first.id)

    def test_options_are_stored(self) -> None:
        shop = self.module("shop", HEAVY)
        options = {"principal": "zope.user", "key": "o-1", "delay": 60, "priority": -5, "site": "/tmp"}
        job = shop.heavy_computing.using(**options).enqueue(2, 7)
        again = shop.heavy_computing.using(**options).enqueue(2, 7)
        self.assertEqual(job, again)
        [shown] = self.jobs()
        self.assertEqual(
            [shown[name] for name in ("principal", "key", "priority", "site", "state")],
            ["zope.user", "o-1", -5, "/tmp", "delayed"],
        )
        at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        shop.heavy_computing.using(run_at=at).enqueue(2, 7)
        due = datetime.datetime.fromisoformat(self.jobs()[1]["run_at"])
        self.assertLess(abs(due - at), datetime.timedelta(milliseconds=2))
        with self.assertRaisesRegex(asyncq.Error, "another call"):
            shop.heavy_computing.using(key="o-1").enqueue(3, 7)

    def test_a_delay_counts_from_the_call(self) -> None:
        import time

        shop = self.module("shop", HEAVY)
        remind = shop.heavy_computing.using(delay=0.5)
        time.sleep(0.6)
        self.assertEqual(remind.enqueue(2, 7).state, "delayed")

    def test_decorators_below_may_change_the_arguments(self) -> None:
        shop = self.module(
            "shop",
            """
            import functools

            def with_session(function):
                @functools.wraps(function)
                def wrapped(*args):
                    return function("session", *args)
                return wrapped

            @asyncq.function("events")
            @with_session
            def f(session, n):
                return [session, n]
            """,
        )
        job = shop.f.enqueue(7)
        self.drain()
        self.assertEqual(job.wait(5), ["session", 7])

    def test_calls_are_made_on_behalf_of_who_is_logged_in(self) -> None:
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def who():
                print(asyncq.get_principal())
            """,
        )
        shop.who()
        asyncq.login("zope.user")
        shop.who()
        with asyncq.login("other"):
            shop.who()
        shop.who()
        asyncq.logout()
        shop.who()
        self.assertEqual([job["principal"] for job in self.jobs()], [None, "zope.user", "other", "zope.user", None])
        self.assertEqual(sorted(self.drain().split()), ["None", "None", "other", "zope.user", "zope.user"])

    def test_without_its_service_a_call_runs_at_once_with_one_warning(self) -> None:
        shop = self.module("shop", HEAVY.replace('"events"', '"nowhere"'))
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            self.assertEqual(shop.heavy_computing(2, 7), 9)
        [warning] = seen
        self.assertEqual(warning.category, asyncq.MissingServiceWarning)
        self.assertIn("service `nowhere` does not exist, so `shop.heavy_computing` runs at once", str(warning.message))
        self.assertEqual(warning.filename, __file__)
        with self.assertRaisesRegex(asyncq.Error, "service `nowhere` of `shop.heavy_computing` does not exist"):
            shop.heavy_computing.enqueue(2, 7)
        with self.assertRaisesRegex(asyncq.Error, "service `nowhere` of `shop.heavy_computing` does not exist"):
            shop.heavy_computing.using(key="k").enqueue(2, 7)
        asyncq.configure(missing_service="error")
        with self.assertRaisesRegex(asyncq.Error, "service `nowhere` of `shop.heavy_computing` does not exist"):
            shop.heavy_computing(2, 7)

    def test_without_its_store_a_call_is_an_error(self) -> None:
        import os

        shop = self.module("shop", HEAVY)
        os.environ["ASYNCQ_DB"] = self.folder + "/unmounted/queue.db"
        with self.assertRaises(asyncq.NoStore):
            shop.heavy_computing(2, 7)

    def test_functions_of_any_language_can_be_called(self) -> None:
        self.asyncq("function", "add", "events", "resize", "--", "echo", "resized")
        asyncq.remote("events", "resize")("a.png", "-x", 7)
        self.assertEqual(self.drain(), "resized a.png -x 7\n")
        with self.assertRaisesRegex(asyncq.Error, "no function `shrink`"):
            asyncq.remote("events", "shrink")("a.png")

    def test_a_function_that_was_removed_is_registered_again(self) -> None:
        shop = self.module("shop", HEAVY)
        shop.heavy_computing(2, 7)
        self.drain()
        self.asyncq("function", "remove", "events", "shop.heavy_computing")
        shop.heavy_computing(2, 8)
        self.assertEqual(self.drain(), "Computing 2 + 8 = 10\n")

    def test_another_checkout_does_not_redirect_a_function(self) -> None:
        shop = self.module("shop", HEAVY)
        self.asyncq("function", "add", "events", "shop.heavy_computing", "--", "echo", "the server's")
        with self.assertWarnsRegex(RuntimeWarning, "is registered with another .*`python -m asyncq.register shop` changes it"):
            shop.heavy_computing(2, 7)
        self.assertEqual(self.drain(), "the server's 2 7\n")
        self.assertEqual(asyncq.register("shop"), {("events", "shop.heavy_computing"): "changed"})
        self.assertEqual(asyncq.register(shop), {("events", "shop.heavy_computing"): "same"})
        shop.heavy_computing(2, 7)
        self.assertEqual(self.drain(), "Computing 2 + 7 = 9\n")


class Immediate(Place):
    def test_calls_run_at_once_through_json(self) -> None:
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def echo(*args, **kwargs):
                return [asyncq.is_async(), args, kwargs]

            @asyncq.function("events")
            def no_json():
                return {1, 2}

            @asyncq.function("events")
            async def later(n):
                return 1 + n + 0 // n
            """,
        )
        with asyncq.immediate():
            self.assertEqual(shop.echo((1, 2), a=(3,)), [True, [[1, 2]], {"a": [3]}])
            with self.assertRaisesRegex(TypeError, "the value of the function is not JSON"):
                shop.no_json()
            with self.assertRaisesRegex(TypeError, "argument 1 of `shop.echo`"):
                shop.echo({1})
            job = shop.echo.using(key="k", delay=60).enqueue((1,))
            self.assertEqual((job.state, job.wait()), ("completed", [True, [[1]], {}]))
            self.assertEqual(shop.later.enqueue(2).result, 3)
            with self.assertRaisesRegex(asyncq.Failed, "ZeroDivisionError"):
                shop.later.enqueue(0).wait()
        self.assertEqual(self.jobs(), [])


if __name__ == "__main__":
    unittest.main()
