"""What the original's document shows, line for line, and what the project's pages show."""

from __future__ import annotations

import doctest
import os
import types

from place import Place

HERE = os.path.dirname(os.path.abspath(__file__))


class Seed(Place):
    def test_the_document_of_the_original(self) -> None:
        import sys

        sys.modules["asyncq_tests"] = types.ModuleType("asyncq_tests")
        self.addCleanup(sys.modules.pop, "asyncq_tests")
        failed, attempted = doctest.testfile(os.path.join(HERE, "seed.txt"), module_relative=False)
        self.assertEqual(failed, 0)
        self.assertGreater(attempted, 30)
