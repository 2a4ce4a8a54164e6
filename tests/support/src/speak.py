#!/usr/bin/env python3
# With what the programs of tests begin that speak the worker protocol, be it as workers or as hosts: they talk on `line`,
# and hear from `read`.
import json, os, signal, socket, subprocess, sys, threading, time

lock = threading.Lock()


def write(text):
    with lock:
        line.sendall(text.encode() + b"\n")


def say(**message):
    write(json.dumps({"jsonrpc": "2.0", **message}))


def hear():
    text = read.readline()
    return json.loads(text) if text else None


def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\n")


def lines(name):
    return open(name).read().split() if os.path.exists(name) else []


def until(holds):
    while not holds():
        time.sleep(0.01)


def exists(name):
    return lambda: os.path.exists(name)


def inside(call):
    """The environment of a command that is to know in whose call it is."""
    names = {"ASYNCQ_JOB": call["job"], "ASYNCQ_TOKEN": call["token"], "ASYNCQ_PRINCIPAL": call["principal"]}
    return {**os.environ, **{name: str(value) for name, value in names.items() if value is not None}}


def answer(id, run, call):
    """Runs a call, which `run` returns or raises, and answers it."""
    try:
        reply = {"result": {"value": run(call)}}
    except Exception as error:
        reply = {"error": {"code": getattr(error, "code", 1), "message": str(error)}}
    sys.stdout.flush(), sys.stderr.flush()
    say(id=id, **reply)


