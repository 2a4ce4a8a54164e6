#!/usr/bin/env python3
"""A worker that plays a conversation, and tells in a file whether asyncq wrote what it should, word for word. Where asyncq has
not started it, it is a host, and starts asyncq.

    hear.py CONVERSATION VERDICT

README.md beside this file tells how to read a conversation. Before it expects a `cancel`, it brings that about.
"""
import os, re, signal, socket, subprocess, sys, time

STANDS_FOR = [
    (r'"token":"[0-9a-f]{32}"', '"token":"TOKEN"'),
    (r'"site":"' + re.escape(os.getcwd()) + '"', '"site":"SITE"'),
    (r'"asyncq":"[0-9][^"]*"', '"asyncq":"VERSION"'),
    (r'"deadline":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', '"deadline":"DEADLINE"'),
]


def bring_about(line):
    """What makes asyncq want to end a call; a time limit comes by itself."""
    if '"why":"cancelled"' in line:
        # Not waited for: it waits itself, until the call has ended.
        subprocess.Popen(["asyncq", "job", "cancel", re.search(r'"job":(\d+)', line)[1]])
    if '"why":"stop"' in line:
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(0.3)  # two that come at once would be one
        os.kill(os.getppid(), signal.SIGTERM)


def play(conversation, line):
    read = line.makefile("rb")
    for number, step in enumerate(open(conversation, encoding="utf-8"), 1):
        sign, text = step[:2], step[2:].rstrip("\n")
        if sign == "> ":
            line.sendall(text.encode() + b"\n")
        elif sign == "| ":
            print(text, flush=True)
        elif sign == "< ":
            if '"method":"cancel"' in text:
                bring_about(text)
            heard = read.readline().decode().rstrip("\n")
            for what, word in STANDS_FOR:
                heard = re.sub(what, word, heard)
            if heard != text:
                return f"line {number}: asyncq writes {heard}"
    rest = read.readline()
    return f"asyncq goes on: {rest.decode()}" if rest else "as it should be"


def host():
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(["asyncq", "process", "--worker-socket", str(theirs.fileno())], pass_fds=[theirs.fileno()])
    return ours


conversation, verdict = sys.argv[1:]
number = os.environ.get("ASYNCQ_WORKER")
result = play(conversation, socket.socket(fileno=int(number)) if number else host())
with open(verdict, "a") as file:
    file.write(f"{result}\n")
