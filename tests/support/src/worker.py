# What the workers of tests/cli/worker.rs have besides speak.py: the line, and how they end calls.
line = socket.socket(fileno=int(os.environ["ASYNCQ_WORKER"]))
line.set_inheritable(False)
read = line.makefile("rb")


class Conflict(Exception):
    code = 75


class CannotRun(Exception):
    code = 127


def hello(**params):
    say(id=0, method="hello", params={"protocol": 1, **params})
    return hear()


def serve(run, **params):
    """Says hello, and runs one call after another, which `run` returns or raises."""
    note("started", os.getpid())
    hello(**params)
    while message := hear():
        if message.get("method") == "call":
            answer(message["id"], run, message["params"])


