#!/usr/bin/env python3
"""A worker for asyncq: one process that runs call after call. docs/protocol.md is what it follows."""
import json, os, socket, subprocess, sys, traceback

class Conflict(Exception): """What a function raises to be tried again."""
class CannotRun(Exception): """A call that could not be begun."""
def heavy_computing(a, b): return a * b
def hello(name): print("Hello", name)
def fails(): raise ValueError("it does not work")
def conflicts(): raise Conflict("write conflict")
def who(): print(subprocess.run(["asyncq", "whoami"], stdout=subprocess.PIPE, text=True).stdout, end="")
FUNCTIONS = {function.__name__: function for function in (heavy_computing, hello, fails, conflicts, who)}

def run(call):
    if call["function"] not in FUNCTIONS:
        raise CannotRun(f"this worker has no function `{call['function']}`")
    # For `asyncq` in programs that the function starts: it has to know whose call it is in.
    for name in ("job", "token", "principal"):
        os.environ.pop(f"ASYNCQ_{name.upper()}", None)
        if call[name] is not None: os.environ[f"ASYNCQ_{name.upper()}"] = str(call[name])
    return FUNCTIONS[call["function"]](*call["args"], **call["kwargs"])

def line(**message):
    return json.dumps({"jsonrpc": "2.0", **message}, allow_nan=False).encode() + b"\n"
def answer(id, call):
    try:
        return line(id=id, result={"value": run(call)})  # a value that is no JSON is an error too
    except BaseException as error:  # whatever a function raises, SystemExit and KeyboardInterrupt too: the worker goes on
        if os.getpid() != WORKER: raise  # the function has forked: a child does not answer for its parent
        traceback.print_exc()
        code = {Conflict: 75, CannotRun: 127}.get(type(error), 1)
        told = "".join(traceback.format_exception_only(type(error), error))  # unlike str(error), this never fails
        return line(id=id, error={"code": code, "message": told})

WORKER = os.getpid()
sys.stdout.reconfigure(errors="surrogateescape")  # file names that are not UTF-8 are printed as they are
asyncq = socket.socket(fileno=int(os.environ["ASYNCQ_WORKER"]))
asyncq.set_inheritable(False)  # what functions start must not write there
asyncq.sendall(line(id=0, method="hello", params={"protocol": 1, "worker": "worker.py", "functions": list(FUNCTIONS)}))
for message in map(json.loads, asyncq.makefile("rb")):
    if message.get("method") == "call":
        reply = answer(message["id"], message["params"])
        if os.getpid() != WORKER: sys.exit()
        sys.stdout.flush(), sys.stderr.flush()  # what is printed before the answer belongs to the call
        asyncq.sendall(reply)
