"""Schedules from Python."""

from __future__ import annotations

import datetime
import json
import unittest

import asyncq
from place import Place

REPORTS = """
    @asyncq.function(service="events")
    def build(what, size=1):
        print("built", what, size)
        return what
"""


class Schedules(Place):
    def test_a_deployment_defines_a_schedule_again_and_again(self) -> None:
        reports = self.module("reports", REPORTS)
        build = reports.build.using(principal="alice", priority=-5, lane="disk", meta={"tenant": "acme"}, expires=3600, site="/srv")
        options = {"args": ("full",), "kwargs": {"size": 2}, "cron": "30 2 * * *", "tz": "Europe/Berlin"}
        lateness = {"missed": "skip", "within": datetime.timedelta(hours=2), "overlap": "queue"}
        until = datetime.datetime(2036, 1, 1, tzinfo=datetime.timezone.utc)
        nightly = asyncq.schedule("nightly", build, **options, **lateness, from_="2026-01-01 9:00", until=until, description="all")
        self.assertEqual((nightly.name, nightly), ("nightly", asyncq.Schedule("nightly")))
        info = nightly.info
        [shown] = json.loads(self.asyncq("schedule", "list", "--json"))
        self.assertEqual(
            (info.service, info.function, info.args, info.kwargs, info.principal, info.site),
            ("events", "reports.build", ["full", 2], {}, "alice", "/srv"),
        )
        self.assertEqual(
            (info.priority, info.lane, info.expires, info.meta, info.cron, info.zone, info.every),
            (-5, "disk", 3600, {"tenant": "acme"}, "30 2 * * *", "Europe/Berlin", None),
        )
        self.assertEqual((info.missed, info.within, info.overlap, info.state, info.description), ("skip", 7200, "queue", "active", "all"))
        self.assertEqual((info.until, info.from_ and info.from_.isoformat()), (until, "2026-01-01T09:00:00+01:00"))
        assert info.next_tick
        self.assertEqual(info.next_tick.isoformat(), shown["next_tick"])
        self.assertLess(info.created_at, info.next_tick)
        # The same again, and then another one.
        asyncq.schedule("nightly", build, **options, **lateness, from_="2026-01-01 9:00", until=until, description="all")
        nightly.pause()
        with self.assertRaisesRegex(asyncq.Error, "schedule `nightly` exists with another rule"):
            asyncq.schedule("nightly", reports.build, args=["full"], every=90, change=False)
        asyncq.schedule("nightly", reports.build, args=["full"], every=90)
        info = nightly.info
        self.assertEqual((info.every, info.cron, info.lane, info.principal, info.state), (90, None, None, None, "paused"))
        self.assertEqual(asyncq.schedules("events"), [info])
        nightly.resume()
        self.assertEqual(nightly.info.state, "active")
        nightly.remove()
        self.assertEqual(asyncq.schedules(), [])
        with self.assertRaisesRegex(asyncq.Error, "there is no schedule `nightly`"):
            nightly.info  # noqa: B018

    def test_a_schedule_is_changed_and_run(self) -> None:
        reports = self.module("reports", REPORTS)
        asyncq.login("zope.user")
        nightly = asyncq.schedule("nightly", reports.build, args=["full"], cron="0 3 * * *", tz="UTC")
        self.assertEqual(nightly.info.principal, "zope.user")
        info = nightly.set(cron="15 3 * * *", lane="disk", expires="1h", meta={"a": 1}, principal=None, description="x", until="2036-01-01")
        self.assertEqual(
            (info.cron, info.zone, info.lane, info.expires, info.meta, info.principal, info.description),
            ("15 3 * * *", "UTC", "disk", 3600, {"a": 1}, None, "x"),
        )
        info = nightly.set(reports.build, args=["small"], lane=None, expires=None, meta=None, description=None, until=None, priority=3)
        self.assertEqual((info.args, info.lane, info.expires, info.meta, info.until, info.priority), (["small"], None, None, None, None, 3))
        job = nightly.run()
        made = nightly.make_up("2026-01-01", datetime.datetime(2026, 1, 3, tzinfo=datetime.timezone.utc))
        self.assertEqual((job.id, [it.id for it in made]), (1, [2, 3]))
        self.assertEqual(self.drain("--max-jobs", "1"), "built small 1\n")
        self.assertEqual(job.wait(5), "small")
        [first, second] = nightly.next(2, from_="2036-03-28")
        self.assertEqual((first.isoformat(), second - first), ("2036-03-28T03:15:00+00:00", datetime.timedelta(days=1)))
        self.assertEqual(len(nightly.next()), 5)

    def test_the_times_of_a_rule(self) -> None:
        [before, after] = asyncq.next_ticks(cron="30 2 * * mon-fri", tz="Europe/Berlin", count=2, from_="2036-03-28")
        self.assertEqual((before.isoformat(), after.isoformat()), ("2036-03-28T02:30:00+01:00", "2036-03-31T02:30:00+02:00"))
        ticks = asyncq.next_ticks(every=datetime.timedelta(hours=8), count=3)
        self.assertEqual(ticks[2] - ticks[0], datetime.timedelta(hours=16))

    def test_functions_of_any_language_have_schedules(self) -> None:
        self.asyncq("function", "add", "events", "resize", "--", "echo", "resized")
        asyncq.schedule("images", asyncq.remote("events", "resize"), args=["a.png"], every="1h").run()
        self.assertEqual(self.drain(), "resized a.png\n")

    def test_what_cannot_be_a_schedule_is_refused(self) -> None:
        reports = self.module("reports", REPORTS)
        build = reports.build
        now = datetime.datetime.now()
        for attempt, kind, words in [
            (lambda: asyncq.schedule("n", build, args=["x"]), asyncq.Error, "the rule of the schedule is missing"),
            (lambda: asyncq.schedule("n", build, args=["x"], every=1, cron="* * * * *"), asyncq.Error, "exclude each other"),
            (lambda: asyncq.schedule("n", build, args=["x"], cron="60 * * * *", tz="UTC"), asyncq.Error, "60"),
            (lambda: asyncq.schedule("n", build, args=["x"], cron="* * * * *", tz="Europe/Berln"), asyncq.Error, "did you mean"),
            (lambda: asyncq.schedule("n", build, args=["x"], every=0), ValueError, "every is 0; it is at least a millisecond"),
            (lambda: asyncq.schedule("n", build, args=["x"], every=0.5), asyncq.Error, "the shortest span is 1s"),
            (lambda: asyncq.schedule("n", build, args=["x"], every="90"), asyncq.Error, "the unit is missing"),
            (lambda: asyncq.schedule("n", build, args=["x"], every=90, from_=now), ValueError, "without a time zone"),
            (lambda: asyncq.schedule("n", build, args=["x"], every=90, missed="twice"), asyncq.Error, "`missed` has to be"),
            (lambda: asyncq.schedule("n", build, every=90), TypeError, "missing a required argument: 'what'"),
            (lambda: asyncq.schedule("n", build, args=[{1}], every=90), TypeError, "argument 1 of `reports.build`"),
            (lambda: asyncq.schedule("n", build, args="full", every=90), TypeError, "args is a list, not 'full'"),
            (lambda: asyncq.schedule("n", build.undecorated, args=["x"], every=90), TypeError, "decorated or remote"),
            (lambda: asyncq.schedule("n", build.using(key="k"), args=["x"], every=90), TypeError, "does not take `key`"),
            (lambda: asyncq.schedule("n", build.using(delay=1), args=["x"], every=90), TypeError, "does not take `delay`"),
            (lambda: asyncq.schedule("N", build, args=["x"], every=90), asyncq.Error, "`N` cannot be the name of a schedule"),
            (lambda: asyncq.schedule(7, build, args=["x"], every=90), TypeError, "the name of a schedule is text"),
            (lambda: asyncq.Schedule("n").set(), asyncq.Error, "change nothing"),
            (lambda: asyncq.Schedule("n").set(args=["x"]), TypeError, "only with the whole call"),
            (lambda: asyncq.Schedule("n").set(build.using(lane="x"), args=["x"]), TypeError, "give the options to `set` itself"),
            (lambda: asyncq.Schedule("n").pause(), asyncq.Error, "there is no schedule `n`"),
            (lambda: asyncq.next_ticks(every=90, count=0), asyncq.Error, "from 1 to 10000"),
        ]:
            with self.subTest(words), self.assertRaisesRegex(kind, words):
                attempt()
        nowhere = self.module("nowhere", REPORTS.replace('"events"', '"nowhere"'))
        with self.assertRaisesRegex(asyncq.Error, "service `nowhere` of `nowhere.build` does not exist"):
            asyncq.schedule("n", nowhere.build, args=["x"], every=90)
        self.assertEqual(asyncq.schedules(), [])


if __name__ == "__main__":
    unittest.main()
