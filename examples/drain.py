#!/usr/bin/env python3
"""A program that drains into itself: it starts `asyncq process`, and calls run in this very process. docs/protocol.md is what
it follows. The functions are registered as those of any worker; who drains without this program needs one of them."""
import contextlib, io, json, os, socket, subprocess, sys, traceback

def heavy_computing(a, b): return a * b
def hello(name): print("Hello", name)
FUNCTIONS = {function.__name__: function for function in (heavy_computing, hello)}

def line(**message):
    return json.dumps({"jsonrpc": "2.0", **message}, allow_nan=False).encode() + b"\n"
def run(id, call):
    printed, program = io.StringIO(), os.getpid()
    try:
        with contextlib.redirect_stdout(printed):
            value = FUNCTIONS[call["function"]](*call["args"], **call["kwargs"])
        reply = line(id=id, result={"value": value})  # a value that is no JSON is an error too
    except BaseException as error:  # whatever a function raises, SystemExit and KeyboardInterrupt too: the drain goes on
        if os.getpid() != program: raise  # the function has forked: a child does not answer for its parent
        traceback.print_exc()
        told = "".join(traceback.format_exception_only(type(error), error))  # unlike str(error), this never fails
        reply = line(id=id, error={"code": 1, "message": told})
    if os.getpid() != program: sys.exit()
    # What the call has printed becomes output of its job, in pieces, as a line has at most 4 MiB.
    text, size = printed.getvalue(), 65536
    pieces = [text[at:at + size] for at in range(0, len(text), size)]
    outputs = [line(method="output", params={"job": call["job"], "stream": "out", "text": piece}) for piece in pieces]
    return b"".join(outputs) + reply

def drain(*words):
    ours, theirs = socket.socketpair()
    with theirs:  # the processor's end, which nobody else keeps
        command = ["asyncq", "process", *words, "--worker-socket", str(theirs.fileno())]
        processor = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    # Nothing runs here between two drains, whatever became of the processor before: so it is idle.
    ours.sendall(line(id=0, method="hello", params={"protocol": 1, "functions": list(FUNCTIONS), "idle": True}))
    with contextlib.suppress(ConnectionError):  # it was killed: what runs is this program's to end
        for message in map(json.loads, ours.makefile("rb")):
            if message.get("method") == "call":
                ours.sendall(run(message["id"], message["params"]))
    return processor.wait()

sys.exit(drain(*sys.argv[1:]))
