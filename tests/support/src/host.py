# What the hosts of tests/cli/socket.rs have besides speak.py: they start a processor, and run its calls themselves.
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


def serve(run, at_once=False):
    """Runs calls until the processor has ended; gives its exit code."""
    while message := hear():
        if message.get("method") == "call":
            work = threading.Thread(target=answer, args=(message["id"], run, message["params"]))
            work.start()
            if not at_once:
                work.join()
    return processor.wait()


