"""The functions that the conversations in tests/protocol/worker call."""

import subprocess

import asyncq


@asyncq.function("events")
def heavy_computing(a, b):
    return a * b


@asyncq.function("events")
def hello(name):
    print("Hello", name)


@asyncq.function("events")
def fails():
    raise ValueError("it does not work")


@asyncq.function("events")
def conflicts():
    raise asyncq.Conflict("write conflict")


@asyncq.function("events")
def who():
    subprocess.run(["asyncq", "whoami"])
