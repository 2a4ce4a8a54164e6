"""What is refused, where, and with which words."""

from __future__ import annotations

import datetime
import math
import sqlite3
from typing import Any

import asyncq
from place import Place

ECHO = """
    @asyncq.function("events")
    def echo(*args, **kwargs):
        return [args, kwargs]
"""


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


class Arguments(Place):
    def test_what_is_no_json_is_refused_at_the_call(self) -> None:
        shop = self.module("shop", ECHO)
        loop: list[Any] = []
        loop.append(loop)
        for value, words in [
            ({1, 2}, "is not JSON: Object of type set"),
            (b"bytes", "is not JSON: Object of type bytes"),
            (math.nan, "is not JSON: Out of range float"),
            (math.inf, "is not JSON"),
            ({1: 2}, "has the key 1, and JSON has only text as keys"),
            ([{None: 2}], "has the key None"),
            ("a\0b", "contains a NUL character"),
            ({"a\0": 1}, "a key with a NUL character"),
            ("\ud83d", "half of a surrogate pair"),
            (deep(64), "is nested deeper than 64"),
            (loop, "is nested deeper than 64"),
            ("x" * (1 << 20), "is longer than 1 MiB"),
            (10**5000, "is not JSON"),
            (datetime.datetime.now(), "is not JSON: Object of type datetime"),
        ]:
            with self.subTest(words), self.assertRaises(TypeError) as raised:
                shop.echo(1, value)
            self.assertIn("argument 2 of `shop.echo`", str(raised.exception))
            self.assertIn(words, str(raised.exception))
            with self.assertRaisesRegex(TypeError, "argument `word` of `shop.echo`"):
                shop.echo.enqueue(word=value)
        with self.assertRaisesRegex(TypeError, "the arguments of `shop.echo`: together they"):
            shop.echo("x" * 600_000, "y" * 600_000)
        self.assertEqual(self.jobs(), [])

    def test_what_is_just_json_comes_back_equal(self) -> None:
        shop = self.module("shop", ECHO)
        values = [deep(62), "x" * 900_000, 10**400, 0.1, True, None, "ä\u2028\ud7ff\U0001f600", {"": {}}]
        job = shop.echo.enqueue(*values, key_word={"a": [1]})
        self.drain()
        self.assertEqual(job.wait(5)[0][:1], values[:1])
        self.assertEqual(job.result, [values, {"key_word": {"a": [1]}}])

    def test_arguments_that_the_function_does_not_take_are_refused(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef two(a, b): pass")
        with self.assertRaisesRegex(TypeError, r"two\(\): missing a required argument: 'b'"):
            shop.two(1)
        with self.assertRaisesRegex(TypeError, "unexpected keyword argument 'c'"):
            shop.two(1, 2, c=3)


class Functions(Place):
    def test_what_a_worker_would_not_find_is_refused_at_the_call(self) -> None:
        shop = self.module(
            "shop",
            """
            import functools

            def outer():
                @asyncq.function("events")
                def local(): pass
                return local

            unnamed = asyncq.function("events")(lambda: None)

            class Shop:
                @asyncq.function("events")
                def method(self): pass

            @asyncq.function("events")
            def replaced(): pass
            original, replaced = replaced, 7

            @asyncq.function("events")
            def deleted(): pass
            gone = deleted
            del deleted

            @asyncq.function("events")
            def grün(): pass
            """,
        )
        for call, words in [
            (shop.outer(), "defined inside a function"),
            (shop.unnamed, "a lambda has no name"),
            (shop.original, "leads to 7, not to this function"),
            (shop.gone, "`shop.deleted` does not exist"),
            (getattr(shop, "grün"), "cannot be the name of a function in the store"),
        ]:
            with self.subTest(words), self.assertRaisesRegex(asyncq.Error, words):
                call()
        with self.assertRaisesRegex(asyncq.Error, "is a method"):
            shop.Shop().method()

    def test_a_script_is_told_to_use_a_module(self) -> None:
        import subprocess
        import sys

        script = "import asyncq\n@asyncq.function('events')\ndef f(): pass\nf()"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        self.assertEqual(
            done.stderr.splitlines()[-1],
            "asyncq.Error: `f` belongs to a script, which workers cannot import; move it into a module",
        )

    def test_the_decorator_takes_one_service_and_a_function(self) -> None:
        def generator() -> Any:
            yield 1

        async def asynchronous_generator() -> Any:
            yield 1

        for attempt, words in [
            (lambda: asyncq.function(generator), "name a service"),
            (lambda: asyncq.function("events")(generator), "is a generator"),
            (lambda: asyncq.function("events")(asynchronous_generator), "is a generator"),
            (lambda: asyncq.function("events")(int), "decorates functions"),
            (lambda: asyncq.function(), "missing 1 required positional argument"),
            (lambda: asyncq.function("a", "b"), "takes 1 positional argument"),
        ]:
            with self.subTest(words), self.assertRaisesRegex(TypeError, words):
                attempt()  # type: ignore[no-untyped-call]


class OptionsGiven(Place):
    def test_options_that_cannot_be_are_refused(self) -> None:
        shop = self.module("shop", ECHO)
        now = datetime.datetime.now(datetime.timezone.utc)
        for options, kind, words in [
            ({"colour": "red"}, TypeError, "unexpected keyword argument 'colour'"),
            ({"delay": 1, "run_at": now}, TypeError, "either `run_at` or `delay`"),
            ({"run_at": datetime.datetime.now()}, ValueError, "without a time zone"),
            ({"run_at": 7}, ValueError, "without a time zone"),
            ({"delay": -1}, ValueError, "from 0 on"),
            ({"principal": ""}, ValueError, "cannot be a principal"),
            ({"principal": "a\nb"}, ValueError, "cannot be a principal"),
            ({"principal": "x" * 256}, ValueError, "cannot be a principal"),
            ({"principal": 7}, TypeError, "a principal is text"),
            ({"priority": "high"}, TypeError, "whole number"),
            ({"lane": ""}, ValueError, "lane is empty"),
            ({"lane": 7}, TypeError, "lane is text"),
            ({"after": ["7"]}, TypeError, "numbers of jobs"),
            ({"after": True}, TypeError, "numbers of jobs"),
            ({"expires": -1}, ValueError, "number of seconds"),
            ({"key_until": "ended"}, TypeError, "needs a key"),
            ({"key": "k", "key_until": "soon"}, ValueError, "'started' or 'ended'"),
            ({"key": "k", "if_taken": "keep"}, TypeError, "needs a key_until"),
            ({"meta": [1]}, TypeError, "mapping"),
            ({"key": 7}, TypeError, "key is text"),
            ({"key": ""}, ValueError, "key is empty"),
            ({"site": "here"}, ValueError, "an absolute path"),
        ]:
            with self.subTest(words), self.assertRaisesRegex(kind, words):
                shop.echo.using(**options).enqueue()
        for connection in (7, "queue.db"):
            with self.assertRaisesRegex(TypeError, "is not a database connection"):
                shop.echo.using(connection)
        with self.assertRaises(asyncq.NoStore), sqlite3.connect(":memory:") as db:
            shop.echo.using(db).enqueue()
        for attempt in (lambda: asyncq.login(""), lambda: asyncq.configure(threads=0), lambda: asyncq.configure(missing_service="x")):  # type: ignore[arg-type]
            with self.assertRaises(ValueError):
                attempt()

    def test_a_program_that_is_not_asyncq_is_named(self) -> None:
        shop = self.module("shop", ECHO)
        asyncq.configure(binary="/nowhere/asyncq")
        with self.assertRaisesRegex(asyncq.Error, r"cannot find the program `/nowhere/asyncq`; set \$ASYNCQ_BIN"):
            shop.echo()
        self.write_program("old", "exit 2")
        asyncq.configure(binary=self.folder + "/old")
        with self.assertRaisesRegex(asyncq.Error, r"has no command `rpc`.*\$ASYNCQ_BIN"):
            shop.echo()

    def write_program(self, name: str, script: str) -> None:
        import os

        with open(name, "w") as file:
            file.write(f"#!/bin/sh\n{script}\n")
        os.chmod(name, 0o755)
