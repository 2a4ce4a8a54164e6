#!/usr/bin/env python3
# With what the workers of tests/cli/worker.rs begin: the line, and words for what they do there.
import json, os, signal, socket, subprocess, sys, time

line = socket.socket(fileno=int(os.environ["ASYNCQ_WORKER"]))
line.set_inheritable(False)
read = line.makefile("rb")


class Conflict(Exception):
    code = 75


class CannotRun(Exception):
    code = 127


def write(text):
    line.sendall(text.encode() + b"\n")


def say(**message):
    write(json.dumps({"jsonrpc": "2.0", **message}))


def hear():
    text = read.readline()
    return json.loads(text) if text else None


def hello(**params):
    say(id=0, method="hello", params={"protocol": 1, **params})
    return hear()


def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\n")


def lines(name):
    return open(name).read().split() if os.path.exists(name) else []


def until(holds):
    while not holds():
        time.sleep(0.01)


def inside(call):
    """The environment of a command that is to know in whose call it is."""
    names = {"ASYNCQ_JOB": call["job"], "ASYNCQ_TOKEN": call["token"], "ASYNCQ_PRINCIPAL": call["principal"]}
    return {**os.environ, **{name: str(value) for name, value in names.items() if value is not None}}


def serve(run, **params):
    """Says hello, and runs one call after another, which `run` returns or raises."""
    note("started", os.getpid())
    hello(**params)
    while message := hear():
        if message.get("method") == "call":
            answer(message["id"], run, message["params"])


def answer(id, run, call):
    try:
        reply = {"result": {"value": run(call)}}
    except Exception as error:
        reply = {"error": {"code": getattr(error, "code", 1), "message": str(error)}}
    sys.stdout.flush(), sys.stderr.flush()
    say(id=id, **reply)


