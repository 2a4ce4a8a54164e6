"""`python -m asyncq.register MODULE...` registers the functions of modules, and changes those that are registered differently."""

from __future__ import annotations

import sys

if __name__ != "__main__":
    raise ImportError("run it: python -m asyncq.register MODULE...")

import argparse

import asyncq


def main(words: list[str]) -> int:
    """Registers functions, and prints what was done."""
    parser = argparse.ArgumentParser(prog="python -m asyncq.register", description="Register decorated functions.")
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="a module with decorated functions")
    parser.add_argument("--threads", type=int, help="how many calls their worker runs at once [default: 1]")
    options = parser.parse_args(words)
    try:
        asyncq.configure(threads=options.threads)
        for (service, name), outcome in asyncq.register(*options.modules).items():
            print(f"{service} {name}: {outcome}")
    except (asyncq.Error, ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, asyncq.Error) else 1
    return 0


sys.exit(main(sys.argv[1:]))
