"""Installing by pip."""

from __future__ import annotations

import os
import subprocess
import sys

import asyncq
from place import Place


class Wheel(Place):
    def test_pip_installs_program_and_package(self) -> None:
        import re

        # The same build as that of the tests, so that nothing is built twice; `pip install .` makes an optimised one.
        root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        target = os.environ["ASYNCQ_TARGET"]
        environment = {**os.environ, "MATURIN_PEP517_ARGS": "--profile dev", "CARGO_TARGET_DIR": target, "PATH": path}
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", self.folder, root]
        done = subprocess.run(build, capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        [wheel] = [name for name in os.listdir(self.folder) if name.endswith(".whl")]
        self.assertRegex(wheel, re.escape(f"asyncq-{asyncq.__version__}-py3-none-") + r"\w*linux\w*\.whl")
        venv = os.path.join(self.folder, "venv")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([f"{venv}/bin/python", *pip[1:], "install", "--no-deps", "--no-index", wheel], check=True)
        self.write_module("shop", "@asyncq.function('events')\ndef f(): print('ran in', __import__('sys').prefix)\n")
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ASYNCQ_BIN")}
        subprocess.run([f"{venv}/bin/python", "-c", "import shop; shop.f()"], check=True, env=clean)
        done = subprocess.run([f"{venv}/bin/asyncq", "process"], capture_output=True, text=True, env=clean)
        self.assertEqual((done.stdout, done.stderr), (f"ran in {venv}\n", ""))
