"""Calls in a transaction of the application."""

from __future__ import annotations

import sqlite3
import warnings

import asyncq
from place import Place

MAIL = """
    @asyncq.function("events")
    def mail(order, *, to="bob"):
        print("a mail for", order, "to", to)

    @asyncq.function("nowhere")
    def lost():
        return "ran at once"
"""


class InATransaction(Place):
    def setUp(self) -> None:
        super().setUp()
        self.shop = self.module("shop", MAIL)
        self.connection = sqlite3.connect(self.db)
        self.addCleanup(self.connection.close)
        self.connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")

    def test_a_call_exists_if_and_only_if_the_transaction_commits(self) -> None:
        db = self.connection
        with db:
            db.execute("INSERT INTO orders VALUES (1)")
            job = self.shop.mail.using(db).enqueue(1)
        try:
            with db:
                db.execute("INSERT INTO orders VALUES (2)")
                self.shop.mail.using(db).enqueue(2)
                raise KeyError
        except KeyError:
            pass
        self.assertEqual([job.id], [job["id"] for job in self.jobs()])
        self.assertEqual(self.drain(), "a mail for 1 to bob\n")
        self.assertEqual(job.state, "completed")

    def test_the_rows_of_the_connection_may_have_another_form(self) -> None:
        db = self.connection
        for factory in (sqlite3.Row, lambda cursor, row: dict(zip([it[0] for it in cursor.description], row))):
            db.row_factory = factory
            with db:
                self.assertGreater(self.shop.mail.using(db).enqueue(1).id, 0)

    def test_every_call_inside_using_joins(self) -> None:
        db = self.connection
        with db, asyncq.using(db):
            self.shop.mail(1, to="ann")
            self.assertTrue(db.in_transaction)
        self.assertEqual(self.drain(), "a mail for 1 to ann\n")
        with asyncq.using(db):
            self.shop.mail(2)
            db.rollback()
        self.assertEqual(len(self.jobs()), 1)

    def test_asynchronous_functions_join_too(self) -> None:
        import asyncio

        shop = self.module("later", "@asyncq.function('events')\nasync def mail(order): print('a mail for', order)\n")

        async def main() -> None:
            with self.connection as db, asyncq.using(db):
                await shop.mail(1)
                await shop.mail.aenqueue(2)
                await shop.mail.using(db).aenqueue(3)
                db.rollback()
                await shop.mail(4)

        asyncio.run(main())
        self.assertEqual(self.drain(), "a mail for 4\n")

    def test_all_options_are_stored_as_without_a_transaction(self) -> None:
        db = self.connection
        options = {"principal": "zope.user", "key": "o-1", "delay": 60, "priority": -5, "hold": True, "site": "/tmp"}
        with db:
            job = self.shop.mail.using(db, **options).enqueue(1)
            self.assertEqual(self.shop.mail.using(db, **options).enqueue(1), job)
        other = self.shop.mail.using(**{**options, "key": "o-2"}).enqueue(1)
        mine, others = self.jobs()
        self.assertEqual((mine["id"], others["id"]), (job.id, other.id))
        for name in ("principal", "priority", "site", "state", "args", "kwargs", "function", "parent"):
            self.assertEqual(mine[name], others[name], name)

    def test_a_key_of_another_call_is_refused(self) -> None:
        with self.connection as db:
            self.shop.mail.using(db, key="k").enqueue(1)
            with self.assertRaisesRegex(asyncq.Error, "this key belongs to another call"):
                self.shop.mail.using(db, key="k").enqueue(2)

    def test_a_service_that_is_missing(self) -> None:
        with self.connection as db, asyncq.using(db):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                self.assertEqual(self.shop.lost(), "ran at once")
            self.assertEqual(len(seen), 1)
            with self.assertRaisesRegex(asyncq.Error, "service `nowhere` of `shop.lost` does not exist"):
                self.shop.lost.using(db).enqueue()

    def test_the_lock_of_this_process_is_named(self) -> None:
        import os

        os.environ["ASYNCQ_LOCK_TIMEOUT"] = "300ms"
        self.connection.execute("BEGIN IMMEDIATE")
        with self.assertRaisesRegex(asyncq.Error, "this very process holds it.*using"):
            self.shop.mail(1)
        self.connection.rollback()

    def test_a_function_completes_its_own_job(self) -> None:
        shop = self.module(
            "own",
            """
            import os, sqlite3

            @asyncq.function("events")
            def effect(fail):
                with sqlite3.connect(os.environ["ASYNCQ_DB"]) as db:
                    db.execute("BEGIN IMMEDIATE")
                    db.execute("INSERT INTO orders VALUES (?)", (asyncq.current_job().id,))
                    asyncq.current_job().complete(db)
                    if fail:
                        raise KeyError("after all")
            """,
        )
        good, bad = shop.effect.enqueue(False), shop.effect.enqueue(True)
        self.drain()
        self.assertEqual((good.state, bad.state), ("completed", "error"))
        self.assertEqual(self.connection.execute("SELECT id FROM orders").fetchall(), [(good.id,)])
