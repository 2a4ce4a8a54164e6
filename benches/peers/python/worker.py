"""A worker for asyncq with a function that does nothing, of the standard library only: as docs/protocol.md tells, and
quick by reading all calls that have come as one JSON text, and answering them in one write."""
import json, os, socket, sys


def noop(a, b): pass
FUNCTIONS = {"noop": noop}


class Counted:
    """Standard output or error, counting what is printed."""
    def __init__(self, stream): self.stream, self.bytes = stream, 0
    def write(self, text):
        self.bytes += len(text.encode())
        return self.stream.write(text)
    def flush(self): self.stream.flush()


def answer(message):
    if message.get("method") != "call":
        return b""
    call = message["params"]
    try:
        value = FUNCTIONS[call["function"]](*call["args"], **call["kwargs"])
        text = "null" if value is None else json.dumps(value, allow_nan=False)
        what = '"result":{"value":%s,' % text
        end = "}"
    except (Exception, SystemExit) as error:
        what = '"error":{"code":1,"message":%s,"data":{' % json.dumps(f"{type(error).__name__}: {error}")
        end = "}}"
    if out.bytes or err.bytes:
        out.flush(), err.flush()
    line = '{"jsonrpc":"2.0","id":%d,%s"output":[%d,%d]%s}\n' % (message["id"], what, out.bytes, err.bytes, end)
    out.bytes = err.bytes = 0
    return line.encode()


out, err = sys.stdout, sys.stderr = Counted(sys.stdout), Counted(sys.stderr)
asyncq = socket.socket(fileno=int(os.environ["ASYNCQ_WORKER"]))
asyncq.set_inheritable(False)
hello = {"protocol": 1, "worker": "peers", "functions": list(FUNCTIONS), "output": "counted"}
asyncq.sendall(json.dumps({"jsonrpc": "2.0", "id": 0, "method": "hello", "params": hello}).encode() + b"\n")
held = b""
while read := asyncq.recv(256 * 1024):
    *lines, held = (held + read).split(b"\n")
    asyncq.sendall(b"".join(map(answer, json.loads(b"[%s]" % b",".join(lines)))))
