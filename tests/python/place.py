"""A store of its own for each test."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from collections.abc import Callable
from typing import Any

import asyncq
from asyncq import _config, _registration, _rpc


class Place(unittest.TestCase):
    """A folder with a store, the service `events`, and modules that the test writes."""

    maxDiff = None

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        sys.path.insert(0, self.folder)
        self.addCleanup(sys.path.remove, self.folder)
        self.db = os.path.join(self.folder, "queue.db")
        os.environ["ASYNCQ_DB"] = self.db
        os.environ["ASYNCQ_LOCK_TIMEOUT"] = "10s"
        for name in ("ASYNCQ_JOB", "ASYNCQ_TOKEN", "ASYNCQ_ATTEMPT", "ASYNCQ_PRINCIPAL"):
            os.environ.pop(name, None)
        self.addCleanup(self._reset)
        self.asyncq("service", "add", "events", "--concurrency", "4")

    def _reset(self) -> None:
        asyncq.logout()
        _config.settings.__dict__.clear()
        _registration._known.clear()
        _rpc.close_all()
        for name in self.modules:
            sys.modules.pop(name, None)

    modules: list[str] = []

    def module(self, name: str, source: str) -> Any:
        """Writes a module with functions of `events`, and imports it."""
        import importlib

        self.write_module(name, source)
        self.modules = [*self.modules, name]
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    def write_module(self, name: str, source: str) -> None:
        """Writes a module."""
        with open(os.path.join(self.folder, f"{name}.py"), "w") as file:
            file.write("import asyncq\n" + textwrap.dedent(source))

    def asyncq(self, *words: str, code: int | None = 0) -> str:
        """What a command prints to stdout."""
        done = subprocess.run([_config.find_binary(), *words], capture_output=True, text=True)
        if code is not None:
            self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Waits until something holds, a minute at most."""
        end = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.02)

    def errors(self, job: int) -> str:
        """What a job printed to stderr."""
        return subprocess.run([_config.find_binary(), "job", "log", str(job)], capture_output=True, text=True).stderr

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, in the order of their numbers."""
        text = self.asyncq("job", "list", "--json", "--limit", "1000")
        return sorted(json.loads(text), key=lambda job: int(job["id"]))

    def process(self, *services: str, **options: Any) -> str:
        """What a drain into this process prints."""
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
            asyncq.process(*services, **options)
        return printed.getvalue()

    def drain(self, *options: str) -> str:
        """What `asyncq process` prints, which runs functions in workers. Functions may fail."""
        return self.asyncq("process", *options, code=None)
