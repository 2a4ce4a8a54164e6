"""Installing, registering, and what is started from a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import asyncq
from asyncq import _config
from place import Place


class Deployment(Place):
    def python(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([self.folder, os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "ASYNCQ_BIN": _config.find_binary()}
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def test_modules_are_registered_from_a_shell(self) -> None:
        self.module("shop", "@asyncq.function('events')\ndef f(): pass\n@asyncq.function('events')\nasync def g(): pass\n")
        done = self.python("-m", "asyncq.register", "shop")
        self.assertEqual(sorted(done.stdout.splitlines()), ["events shop.f: added", "events shop.g: added"])
        done = self.python("-m", "asyncq.register", "--threads", "4", "shop")
        self.assertEqual(sorted(done.stdout.splitlines()), ["events shop.f: changed", "events shop.g: changed"])
        self.assertIn("--threads", self.asyncq("function", "show", "events", "shop.f", "--json"))

    def test_mistakes_are_said_in_a_line(self) -> None:
        self.module("empty", "")
        self.module("other", "@asyncq.function('nowhere')\ndef f(): pass\n")
        self.assertIn("error: there are no functions to register", self.python("-m", "asyncq.register", "empty", code=1).stderr)
        self.assertIn("error: No module named 'gone'", self.python("-m", "asyncq.register", "gone", code=1).stderr)
        self.assertIn("error: there is no service `nowhere`", self.python("-m", "asyncq.register", "other", code=66).stderr)
        self.assertIn("asyncq starts this program by itself", self.python("-m", "asyncq.worker", code=2).stderr)

    def test_retries_and_hooks_are_registered(self) -> None:
        text = """
            @asyncq.function("events")
            def page(job, **about): pass

            @asyncq.function("events", retries=RETRIES, backoff="1m", lane="a", on_error="events/shop.page")
            def send(n): pass
        """
        shop = self.module("shop", text.replace("RETRIES", "5"))
        shop.page.enqueue(1)
        shop.send.enqueue(1)
        shown = json.loads(self.asyncq("function", "show", "events", "shop.send", "--json"))
        members = [shown[name] for name in ("retries", "backoff", "lane", "on_error", "on_success")]
        self.assertEqual(members, [5, "1m", "a", "events/shop.page", None])
        self.module("shop", text.replace("RETRIES", "6"))
        self.assertIn("changed", self.python("-m", "asyncq.register", "shop").stdout)
        shown = json.loads(self.asyncq("function", "show", "events", "shop.send", "--json"))
        self.assertEqual(shown["retries"], 6)
        with self.assertRaisesRegex(TypeError, "asyncq.function has no option `retry`; it has backoff, conflicts"):
            asyncq.function("events", retry=5)  # type: ignore[call-arg]

    def test_the_package_is_the_program(self) -> None:
        self.assertEqual(self.python("-m", "asyncq", "--version").stdout, self.asyncq("--version"))
        self.assertIn(f"asyncq {asyncq.__version__} ", self.asyncq("--version"))

    def test_all_register_at_once(self) -> None:
        self.module("shop", "@asyncq.function('events')\ndef f(n): pass\n")
        path = os.pathsep.join([self.folder, os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        programs = [
            subprocess.Popen([sys.executable, "-c", f"import shop; shop.f({n})"], stderr=subprocess.PIPE, env=environment)
            for n in range(32)
        ]
        for program in programs:
            self.assertEqual((program.communicate()[1], program.returncode), (b"", 0))
        self.assertEqual(sorted(job["args"] for job in self.jobs()), [[n] for n in range(32)])
        self.asyncq("process")
        self.assertEqual({job["state"] for job in self.jobs()}, {"completed"})
