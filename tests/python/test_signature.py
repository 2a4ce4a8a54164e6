"""Which arguments a function takes, and what it keeps to itself."""

from __future__ import annotations

import enum
import json
import os
import sqlite3
import subprocess
import sys
import unittest
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, TypedDict

import asyncq
from asyncq import _registration
from asyncq._signature import Signature
from place import Place

if TYPE_CHECKING:
    from decimal import Decimal

UserId = NewType("UserId", int)


class Address(TypedDict):
    city: str


class Colour(str, enum.Enum):
    RED = "red"


SEND = """
    @asyncq.function("events")
    def send(to: str, subject: str, body: str | None = None, *copies: str, html: bool = False, **headers: int):
        print(to, subject, body, copies, html, headers)
"""
WRITTEN = "to:text subject:text [body:text] [copies:text...] [--html:bool] [--headers:int...]"


class Written(unittest.TestCase):
    """The signature that parameters make."""

    def test_parameters_become_arguments(self) -> None:
        def none(): pass  # type: ignore[no-untyped-def]
        def two(a, b): pass  # type: ignore[no-untyped-def]
        def by_place(a, b=2, /): pass  # type: ignore[no-untyped-def]
        def by_name(*, a, b=2): pass  # type: ignore[no-untyped-def]
        def any_number(*args, **kwargs): pass  # type: ignore[no-untyped-def]
        def all_kinds(a, b=1, *rest, c, d=2, **others): pass  # type: ignore[no-untyped-def]
        def größe(länge): pass  # type: ignore[no-untyped-def]
        async def later(word: str = ""): pass  # type: ignore[no-untyped-def]

        for function, text in [
            (none, ""),
            (two, "a b"),
            (by_place, "a [b]"),
            (by_name, "--a [--b]"),
            (any_number, "[args...] [--kwargs...]"),
            (all_kinds, "a [b] [rest...] --c [--d] [--others...]"),
            (größe, "länge"),
            (later, "[word:text]"),
        ]:
            with self.subTest(text):
                self.assertEqual(Signature(function).text, text)

    def test_what_a_signature_cannot_say_is_not_registered(self) -> None:
        def twice(a, /, **others): pass  # type: ignore[no-untyped-def]
        accent: dict[str, Any] = {}
        exec("def accent(x\u0302): pass", accent)
        exec(f"def long({'a' * 256}): pass\ndef many({', '.join(f'argument_{n}' for n in range(400))}): pass", accent)
        for function in (twice, accent["accent"], accent["long"], accent["many"]):
            self.assertIsNone(Signature(function).text)

    def test_annotations_become_types_where_all_their_values_have_one(self) -> None:
        def f(
            a: bool, b: int, c: float, d: str, e: list[int], f: tuple[int, ...], g: dict[str, int], h: Mapping[str, int],
            i: Address, j: UserId, k: Annotated[int, "id"], l: Literal["a", "b"], m: Literal[1, 2], n: int | float,
            o: "int", p: Optional[int] = None, q: str | None = "x", *, r: int = 1,
        ) -> None: pass  # fmt: skip
        types = "a:bool b:int c:number d:text e:list f:list g:object h:object i:object j:int k:int l:text m:int n:number o:int"
        self.assertEqual(Signature(f).text, f"{types} [p:int] [q:text] [--r:int]")

        def g(
            a: Any, b: object, c: int | str, d: int | None, e: Sequence[str], f: Colour, g: Literal[1, "a"], h: Decimal,
            i: Annotated[Any, 1], j: "no such" = 1, k: None = None,  # type: ignore # noqa
        ) -> None: pass  # fmt: skip
        self.assertEqual(Signature(g).text, "a b c d e f g h i [j] [k]")

    def test_named_arguments_get_their_places(self) -> None:
        def f(a, /, b, c=3, *, d=4, **e): pass  # type: ignore[no-untyped-def]
        def g(a=1, b=2): pass  # type: ignore[no-untyped-def]
        for function, args, kwargs, placed in [
            (f, (1,), {"d": 4, "c": 3, "b": 2, "a": 5}, ((1, 2, 3), {"d": 4, "a": 5})),
            (f, (1, 2), {"e": 5}, ((1, 2), {"e": 5})),
            (g, (), {"b": 2}, ((), {"b": 2})),
            (g, (), {"b": 2, "a": 1}, ((1, 2), {})),
        ]:
            self.assertEqual(Signature(function).placed(args, kwargs), placed)

    @unittest.skipIf(sys.version_info < (3, 12), "a statement of later versions")
    def test_names_of_types_are_followed(self) -> None:
        names: dict[str, Any] = {}
        exec("type Id = int | None\ndef f(a: Id, b: Id = 1): pass\ndef g[T](a: T, b: 'T'): pass", names)
        self.assertEqual(Signature(names["f"]).text, "a [b:int]")
        self.assertEqual(Signature(names["g"]).text, "a b")


class Registered(Place):
    def shown(self, name: str) -> Any:
        return json.loads(self.asyncq("function", "show", "events", name, "--json"))

    def test_a_call_registers_the_signature(self) -> None:
        shop = self.module("shop", SEND)
        shop.send("zoe", "hello", html=True)
        self.assertEqual(self.shown("shop.send")["takes"], WRITTEN)
        self.assertEqual(asyncq.register(shop), {("events", "shop.send"): "same"})
        self.assertEqual(self.drain(), "zoe hello None () True {}\n")

    def test_it_is_checked_at_every_door(self) -> None:
        shop = self.module("shop", SEND)
        asyncq.register(shop)
        for args, kwargs, words in [
            (("zoe",), {}, r"missing a required argument: 'subject'"),
            (("zoe", "hello"), {"to": 1}, r"multiple values for argument 'to'"),
            ((7, "hello"), {}, r"^send\(\) takes text as `to`, you gave a whole number$"),
            (("zoe", "hello"), {"html": 1}, r"^send\(\) takes true or false as `html`, you gave a whole number$"),
            (("zoe", "hello"), {"x": True}, r"^send\(\) takes a whole number as `x`, you gave true or false$"),
            (("zoe", "hello", None, None), {}, None),
            (("zoe", "hello", None, [1]), {}, r"^send\(\) takes text as `copies`, you gave a list$"),
        ]:
            with self.subTest(words):
                if words is None:
                    shop.send.enqueue(*args, **kwargs)
                    continue
                with self.assertRaisesRegex(TypeError, words):
                    shop.send.enqueue(*args, **kwargs)
                with self.assertRaisesRegex(TypeError, words), sqlite3.connect(self.db) as db:
                    shop.send.using(db).enqueue(*args, **kwargs)
                with self.assertRaisesRegex(TypeError, words):
                    asyncq.schedule("often", shop.send, args=args, kwargs=kwargs, every=90)
        self.assertEqual(len(self.jobs()), 1)
        for args, words in [(("zoe",), "takes at least 2 arguments, you gave 1"), ((1, 2), "takes text as `to`, you gave a whole")]:
            with self.assertRaisesRegex(asyncq.Error, words):
                asyncq.remote("events", "shop.send")(*args)
        self.assertIn("takes at least 2", self.errors_of("enqueue", "events", "shop.send", "zoe"))

    def test_arguments_that_are_named_count_too(self) -> None:
        shop = self.module("shop", SEND)
        asyncq.register(shop)
        with sqlite3.connect(self.db) as db:
            for send in (shop.send, shop.send.using(db)):
                send.enqueue(subject="hello", to="zoe", html=True)
                send.enqueue("zoe", subject="hello", x=7)
        self.drain()
        sent = [(job["state"], job["args"], job["kwargs"]) for job in self.jobs()]
        one, two = ("completed", ["zoe", "hello"], {"html": True}), ("completed", ["zoe", "hello"], {"x": 7})
        self.assertEqual(sent, [one, two, one, two])

    def errors_of(self, *words: str) -> str:
        return subprocess.run([os.environ["ASYNCQ_BIN"], *words], capture_output=True, text=True).stderr

    def test_calls_that_run_at_once_are_checked_too(self) -> None:
        shop = self.module(
            "shop",
            """
            @asyncq.function("events")
            def double(n: int) -> int:
                return 2 * n

            @asyncq.function("events")
            def outer(n) -> int:
                return double(n)
            """,
        )
        with asyncq.immediate():
            self.assertEqual(shop.double(2), 4)
            with self.assertRaisesRegex(TypeError, r"double\(\) takes a whole number as `n`, you gave text"):
                shop.double("2")
        job = shop.outer.enqueue("2")
        self.drain()
        job.refresh()
        self.assertIn("takes a whole number as `n`, you gave text", job.error.message)

    def test_another_signature_or_none_can_be_given(self) -> None:
        shop = self.module(
            "shop",
            """
            @asyncq.function("events", takes="n:text")
            def given(n: int): pass

            @asyncq.function("events", takes=None)
            def none(n: int): pass

            @asyncq.function("events", takes="[n] m")
            def wrong(n, m): pass
            """,
        )
        shop.given.enqueue("1")
        with self.assertRaisesRegex(TypeError, "`events shop.given` takes text as `n`, you gave a whole number; if the function"):
            shop.given.enqueue(1)
        shop.none.enqueue("1")
        self.assertEqual([self.shown(name)["takes"] for name in ("shop.given", "shop.none")], ["n:text", None])
        with self.assertRaisesRegex(asyncq.Error, "`takes` cannot be `.n. m`: `m` is required"):
            shop.wrong.enqueue(1, 2)
        with self.assertRaisesRegex(TypeError, "takes is a signature"):
            asyncq.function("events", takes=["n"])  # type: ignore[arg-type]

    def test_the_signature_follows_the_code_in_the_same_place(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef f(a): pass\n")
        shop.f(1)
        _registration._known.clear()  # as in a program that starts later
        newer = self.module("shop", "@asyncq.function('events')\ndef f(a, b=2): pass\n")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            newer.f(1, 2)
        self.assertEqual(self.shown("shop.f")["takes"], "a [b]")
        self.asyncq("function", "set", "events", "shop.f", "--takes", "a b c")
        with self.assertRaisesRegex(TypeError, "takes 3 arguments, you gave 2; if the function has changed, start this program anew"):
            newer.f(1, 2)

    def test_without_a_signature_a_function_stays_as_it_is_until_it_is_registered(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef f(a): pass\n")
        asyncq.register(shop)
        self.asyncq("function", "set", "events", "shop.f", "--no-takes")
        shop.f(1)
        self.assertIsNone(self.shown("shop.f")["takes"])
        self.assertEqual(asyncq.register(shop), {("events", "shop.f"): "changed"})
        self.assertEqual(self.shown("shop.f")["takes"], "a")

    def test_the_signature_of_a_hook_stays_if_a_hook_could_not_be_called(self) -> None:
        shop = self.module("shop", "@asyncq.function('events')\ndef page(job, **about): pass\n")
        asyncq.register(shop)
        self.asyncq("service", "set", "events", "--on-error", "events/shop.page")
        _registration._known.clear()
        newer = self.module("shop", "@asyncq.function('events')\ndef page(job): pass\n")
        with self.assertWarnsRegex(RuntimeWarning, "is registered with another `takes`, which stays"):
            newer.page(7)
        with self.assertRaisesRegex(asyncq.Error, "is a hook of service `events`, and could no longer be called"):
            asyncq.register(newer)


class Secrets(Place):
    LOGIN = """
        @asyncq.function("events", secret=["password"], env_file="mail.env")
        def login(user: str, password: str):
            import os
            print(user, len(password), os.environ["SMTP_USER"])
    """

    def test_secrets_are_hidden_and_variables_come_from_their_file(self) -> None:
        shop = self.module("shop", self.LOGIN)
        with open("mail.env", "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write("SMTP_USER=zoe\n")
        shop.login("zoe", "hunter2")
        self.assertEqual([job["args"] for job in self.jobs()], [["zoe", "•••"]])
        self.assertEqual(self.drain(), "zoe 7 zoe\n")
        with self.assertRaises(TypeError) as raised:
            shop.login("zoe", 12345)
        self.assertNotIn("12345", str(raised.exception))

    def test_a_transaction_does_not_register_them(self) -> None:
        shop = self.module("shop", self.LOGIN)
        with self.assertRaisesRegex(asyncq.Error, "`shop.login` has `secret`, which your transaction cannot register"):
            with sqlite3.connect(self.db) as db:
                shop.login.using(db).enqueue("zoe", "hunter2")
        asyncq.register(shop)
        with sqlite3.connect(self.db) as db:
            shop.login.using(db).enqueue("zoe", "hunter2")
        self.assertEqual([job["args"] for job in self.jobs()], [["zoe", "•••"]])

    def test_what_cannot_be_is_refused(self) -> None:
        for secret in ("password", [None], [True], [b"password"]):
            with self.assertRaisesRegex(TypeError, "secret is a list"):
                asyncq.function("events", secret=secret)  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            asyncq.function("events", env_file=7)  # type: ignore[arg-type]
        shop = self.module("shop", self.LOGIN.replace('["password"]', '["pasword"]'))
        with self.assertRaisesRegex(asyncq.Error, "no argument `pasword` that could be secret"):
            shop.login("zoe", "hunter2")
        self.assertEqual(self.jobs(), [])


if __name__ == "__main__":
    unittest.main()
