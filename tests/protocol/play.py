#!/usr/bin/env python3
"""Plays conversations of the worker protocol against a worker, to see whether it does what docs/protocol.md says.

    play.py [--timeout SECONDS] FILE... -- PROGRAM [ARG]...

README.md beside this file tells how to read a conversation, and what has to be equal. Exit code 0: the worker did as
each conversation says; 1: it did not; 2: a conversation or the worker could not be begun.
"""
import fcntl, json, os, select, socket, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORDS = {"TOKEN": "0123456789abcdef0123456789abcdef", "SITE": os.getcwd(), "VERSION": "0.1.0", "LONG": "long " * 61440}
BY_CODE = {75: "conflict", 126: "cannot-run", 127: "cannot-run"}
LONGEST_LINE = 4 << 20


class Difference(Exception):
    """What the worker does and should not, or does not and should."""


class CannotPlay(Exception):
    """A conversation, or a program, with which nothing can be begun."""


def filled(line):
    for word, text in WORDS.items():
        line = line.replace(word, text)
    return line


def shown(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-60:]} ({len(text)} characters)"


def not_json(name):
    raise ValueError(f"`{name}` is no JSON")


def steps(path):
    """The conversation in blocks: what asyncq writes (`<`), the worker writes (`>`), and is printed by then (`|`)."""
    blocks = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        sign, rest = line[:1], filled(line[2:])
        if not line or sign == "#":
            continue
        if sign not in "<>|" or line[1:2] not in ("", " "):
            raise CannotPlay(f"{path}: line {number} begins with none of `# `, `< `, `> `, `| `")
        try:
            step = rest if sign == "|" else (rest, json.loads(rest))
        except ValueError as error:
            raise CannotPlay(f"{path}: line {number} is no JSON: {error}") from None
        if not blocks or blocks[-1][0] != sign:
            blocks.append((sign, number, []))
        blocks[-1][2].append(step)
    return blocks


class Worker:
    """The program, with its end of the socket pair as descriptor 3 and its standard output in a file."""

    def __init__(self, command, timeout):
        self.timeout, self.unread = timeout, b""
        pair = socket.socketpair()
        # Neither may be number 3 by chance, under which the worker is to find its end.
        ours, theirs = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pair)
        for end in pair:
            end.close()
        self.socket = socket.socket(fileno=ours)
        os.dup2(theirs, 3)
        os.close(theirs)
        self.files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCQ_")}
        # Whoever forgets to flush is not to be helped.
        environment.pop("PYTHONUNBUFFERED", None)
        # The `asyncq` that functions find is a stand-in, which tells what it was given.
        environment.update(ASYNCQ_WORKER="3", PATH=f"{HERE / 'worker'}:{environment.get('PATH', os.defpath)}")
        out, err = self.files
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, pass_fds=(3,)
            )
        except OSError as error:
            raise CannotPlay(f"cannot start `{command[0]}`: {error.strerror}") from None
        finally:
            os.close(3)

    def send(self, lines):
        self.socket.settimeout(self.timeout)
        try:
            self.socket.sendall("".join(line + "\n" for line in lines).encode())
        except socket.timeout:
            raise Difference(f"it has not read what it was sent for {self.timeout:g} seconds") from None
        except OSError as error:
            raise Difference(f"it no longer reads: {error.strerror}") from None

    def line(self):
        """The next line that the worker writes, or None when it has closed its end."""
        end = time.monotonic() + self.timeout
        while b"\n" not in self.unread:
            if not select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]:
                rest = f", only a part of a line: {shown(self.unread.decode(errors='replace'))}" if self.unread else ""
                raise Difference(f"it has written nothing for {self.timeout:g} seconds{rest}")
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data and self.unread:
                raise Difference(f"its last line has no end: {shown(self.unread.decode(errors='replace'))}")
            if not data:
                return None
            self.unread += data
        line, self.unread = self.unread.split(b"\n", 1)
        return line

    def message(self):
        line = self.line()
        if line is None:
            return None
        if len(line) >= LONGEST_LINE:
            raise Difference(f"a line has {len(line)} bytes; at most {LONGEST_LINE} are allowed")
        try:
            message = json.loads(line.decode(), parse_constant=not_json)
        except ValueError as error:
            raise Difference(f"this line is no JSON ({error}): {shown(line.decode(errors='replace'))}") from None
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise Difference(f'this message has no `"jsonrpc":"2.0"`: {shown(message)}')
        return message

    def printed(self, stream):
        # Not by seeking: the worker shares the position.
        return os.pread(self.files[stream].fileno(), 1 << 30, 0)

    def ends(self):
        """At the end of file, it says nothing more and ends by itself, with exit code 0."""
        self.socket.shutdown(socket.SHUT_WR)
        message = self.message()
        if message is not None:
            raise Difference(f"it writes more than the conversation has: {shown(message)}")
        try:
            code = self.process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise Difference(f"it has not ended {self.timeout:g} seconds after the end of file") from None
        if code != 0:
            raise Difference(f"it has ended with exit code {code}")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.socket.close()


def kind(error):
    data = error.get("data") or {}
    return data.get("kind") or BY_CODE.get(error.get("code"), "error")


def same(one, other):
    """Equal as JSON, where `true` is not 1 and the order of members means nothing."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


class Play:
    """One conversation with one worker."""

    def __init__(self, worker):
        self.worker, self.hello = worker, None
        self.waiting = []  # the ids of the calls that it has not answered
        self.lines = []  # what is to stand on standard output
        self.counted = None  # the bytes on both streams, as the answers count them
        self.sent = ""  # what it has sent as standard output of its calls, instead of printing it

    def block(self, sign, steps):
        if sign == "<":
            self.sends(steps)
        elif sign == ">":
            self.expects([message for _, message in steps])
        else:
            self.lines += steps
            self.prints()

    def sends(self, messages):
        lines = []
        for line, message in messages:
            if message.get("method") == "call":
                self.waiting.append(message["id"])
            elif "id" in message:  # the answer to hello has the id that the worker gave
                line = json.dumps({**message, "id": self.hello["id"]})
            lines.append(line)
        self.worker.send(lines)

    def expects(self, block):
        """A block of what the worker writes: answers by their ids, other messages only if it writes them."""
        answers = [message for message in block if "id" in message]
        others = [message for message in block if "id" not in message]
        while answers:
            message = self.worker.message()
            if message is None:
                raise Difference(f"it has ended, and the conversation goes on: {shown(answers[0])}")
            if self.hello is None:
                self.says_hello(message, answers.pop(0))
            elif "id" in message:
                self.answers(message, answers)
            elif message.get("method") == "output":
                self.outputs(message.get("params") or {})
            elif not any(same(message, other) for other in others):
                raise Difference(f"it writes a message that the conversation does not have: {shown(message)}")
        self.counts()

    def says_hello(self, message, expected):
        params = message.get("params") or {}
        if message.get("method") != "hello" or params.get("protocol") != expected["params"]["protocol"]:
            raise Difference(f"it begins with {shown(message)}, not with a hello like {shown(expected)}")
        if message.get("id") is None:
            raise Difference(f"its hello has no `id`, so that it cannot be answered: {shown(message)}")
        self.hello = message
        self.counted = [0, 0] if params.get("output") == "counted" else None

    def outputs(self, params):
        if params.get("stream") not in ("out", "err") or not isinstance(params.get("text"), str):
            raise Difference(f"output has a `stream`, which is `out` or `err`, and a `text`: {shown(params)}")
        if params["stream"] == "out":
            self.sent += params["text"]

    def answers(self, message, expected):
        id = message["id"]
        if id not in self.waiting:
            raise Difference(f"it answers no call, or answers one again: {shown(message)}")
        if self.hello["params"].get("calls", 1) == 1 and id != self.waiting[0]:
            raise Difference(f"it answers {id} before {self.waiting[0]}, and has not said that it runs several calls")
        self.waiting.remove(id)
        wanted = next((answer for answer in expected if answer["id"] == id), None)
        if wanted is None:
            raise Difference(f"the conversation has no such answer here: {shown(message)}")
        expected.remove(wanted)
        if ("result" in message) == ("error" in message):
            raise Difference(f"an answer has either `result` or `error`: {shown(message)}")
        output = self.result(message, wanted) if "result" in message else self.error(message, wanted)
        if output is not None and self.counted is not None:
            self.counted = [sum(pair) for pair in zip(self.counted, output)]

    def result(self, message, wanted):
        result, model = message["result"], wanted.get("result")
        # What is left out means the same as what is written here.
        plain = lambda result: {"value": result.get("value"), "completed": result.get("completed", False)}
        if not isinstance(result, dict) or model is None or not same(plain(result), plain(model)):
            raise Difference(f"it answers {shown(message)}, not {shown(wanted)}")
        return result.get("output")

    def error(self, message, wanted):
        error, model = message["error"], wanted.get("error")
        if not isinstance(error, dict) or model is None or kind(error) != kind(model):
            raise Difference(f"it answers {shown(message)}, not {shown(wanted)}")
        if not isinstance(error.get("code"), int) or not isinstance(error.get("message"), str):
            raise Difference(f"an error has a number as `code` and a text as `message`: {shown(message)}")
        pause = (model.get("data") or {}).get("pause")
        if pause is not None and (error.get("data") or {}).get("pause") != pause:
            raise Difference(f"it answers {shown(message)}, without the pause in {shown(wanted)}")
        return (error.get("data") or {}).get("output")

    def counts(self):
        if self.counted is None or self.waiting:
            return
        printed = [len(self.worker.printed(stream)) for stream in (0, 1)]
        if printed != self.counted:
            raise Difference(f"its answers count {self.counted} bytes on both streams, and it has printed {printed}")

    def prints(self):
        wanted = "".join(line + "\n" for line in self.lines)
        printed = self.worker.printed(0).decode(errors="replace") + self.sent
        if printed != wanted:
            raise Difference(f"standard output has {shown(repr(printed))} before the answer, not {shown(repr(wanted))}")


def play(path, command, timeout):
    blocks = steps(path)
    worker = Worker(command, timeout)
    number, play = 0, Play(worker)
    try:
        for sign, number, block in blocks:
            play.block(sign, block)
        worker.ends()
        if play.lines:
            play.prints()
    except Difference as difference:
        difference.place = f"{path}, line {number}"
        difference.talk = worker.printed(1).decode(errors="replace")
        raise
    finally:
        worker.close()


def main(arguments):
    timeout = 10.0
    if arguments[:1] == ["--timeout"] and len(arguments) > 1:
        timeout, arguments = float(arguments[1]), arguments[2:]
    files, command = (arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]) if "--" in arguments else ([], [])
    if not files or not command:
        print(__doc__.split("\n")[2].strip(), file=sys.stderr)
        return 2
    different = False
    for file in files:
        try:
            play(Path(file), command, timeout)
            print(f"{file}: as it should be")
        except Difference as difference:
            different = True
            print(f"{difference.place}: {difference}")
            if difference.talk:
                print("  its standard error:", *difference.talk.splitlines()[-20:], sep="\n    ")
        except (CannotPlay, OSError) as error:
            print(error, file=sys.stderr)
            return 2
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
