"""The types of the package, as two checkers see them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(HERE, "..", "..", "python")


class Types(unittest.TestCase):
    def run_checker(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MYPYPATH": PACKAGE, "PYTHONPATH": PACKAGE}
        return subprocess.run(words, capture_output=True, text=True, cwd=HERE, env=environment)

    def expected(self) -> set[int]:
        with open(os.path.join(HERE, "typed.py")) as file:
            return {number for number, line in enumerate(file, 1) if line.endswith("# error\n")}

    def test_the_package_is_strictly_typed(self) -> None:
        done = self.run_checker(sys.executable, "-m", "mypy", "--strict", "--no-incremental", f"{PACKAGE}/asyncq")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_mypy_sees_wrong_arguments(self) -> None:
        done = self.run_checker(sys.executable, "-m", "mypy", "--strict", "--no-incremental", "typed.py")
        seen = {int(number) for number in re.findall(r"^typed\.py:(\d+): error", done.stdout, re.M)}
        self.assertEqual(seen, self.expected(), done.stdout)

    def test_pyright_sees_wrong_arguments(self) -> None:
        done = self.run_checker(sys.executable, "-m", "pyright", "--outputjson", "typed.py")
        found = json.loads(done.stdout)["generalDiagnostics"]
        seen = {it["range"]["start"]["line"] + 1 for it in found if it["severity"] == "error"}
        self.assertEqual(seen, self.expected(), done.stdout)


if __name__ == "__main__":
    unittest.main()
