#!/usr/bin/env python3
# With what the hosts of tests/cli/socket.rs begin: programs that start a processor and run its calls themselves.
import json, os, signal, socket, subprocess, sys, threading, time

lock = threading.Lock()


def start(*words, before=(), **hello):
    """Starts a processor on a socket, and says hello if there is something to say."""
    global line, read, processor
    line, theirs = socket.socketpair()
    with theirs:
        command = [*before, "asyncq", "process", *words, "--worker-socket", str(theirs.fileno())]
        processor = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    note("processor", processor.pid)
    read = line.makefile("rb")
    if hello:
        say(id=0, method="hello", params={"protocol": 1, **hello})
        return hear()


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
    try:
        reply = {"result": {"value": run(call)}}
    except Exception as error:
        reply = {"error": {"code": getattr(error, "code", 1), "message": str(error)}}
    say(id=id, **reply)


def serve(run, at_once=False):
    """Runs calls until the processor has ended; gives its exit code."""
    while message := hear():
        if message.get("method") == "call":
            work = threading.Thread(target=answer, args=(message["id"], run, message["params"]))
            work.start()
            if not at_once:
                work.join()
    return processor.wait()


