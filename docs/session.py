#!/usr/bin/env python3
"""Draws docs/session.svg, the picture in the README: runs the commands below on a terminal, with the `asyncq` that is
first in `PATH`, and writes what they print as an SVG to stdout:

    cargo build && PATH=$PWD/target/debug:$PATH python3 docs/session.py > docs/session.svg

A test runs this too, and compares the text of its picture with that of the kept one.
"""
import fcntl, html, os, pty, re, struct, subprocess, sys, tempfile, termios

COLUMNS = 84
SESSION = """\
asyncq service add images
asyncq function add images thumbnail -- ./thumbnail
asyncq enqueue images thumbnail cat.jpg   # returns at once, safe on the disk
asyncq enqueue images thumbnail dog.jpg
asyncq process                            # your crontab runs this every minute
asyncq job list
asyncq job log 2                          # the output is kept
cp ~/Downloads/dog.jpg .
asyncq job retry 2
asyncq process
"""
THUMBNAIL = """\
#!/bin/sh
[ -e "$1" ] || { echo "thumbnail: there is no $1" >&2; exit 1; }
echo "$1: done"
"""
# The home directory that the picture shows, instead of a temporary one.
HOME = "/home/ann"


def on_terminal(command, folder, home):
    """Everything that a shell command prints on a terminal, colours included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    env = {"PATH": os.environ["PATH"], "HOME": home, "TERM": "xterm-256color", "TZ": "UTC"}
    shell = subprocess.Popen(["sh", "-c", command], cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    try:
        while piece := os.read(ours, 65536):
            printed += piece
    except OSError:  # how Linux reports the end of a terminal
        pass
    os.close(ours)
    if shell.wait() != 0 and "process" not in command:
        sys.exit(f"`{command}` failed: {printed.decode()}")
    return printed.decode().replace("\r\n", "\n").replace(home, HOME).splitlines()


def record():
    """The lines of the session, as pairs: whether it is a command, and its text."""
    with tempfile.TemporaryDirectory() as home:
        folder = os.path.join(home, "pictures")
        os.makedirs(os.path.join(home, "Downloads"))
        os.mkdir(folder)
        for path in ("pictures/cat.jpg", "Downloads/dog.jpg"):
            open(os.path.join(home, path), "w").close()
        with open(os.path.join(folder, "thumbnail"), "w") as program:
            program.write(THUMBNAIL)
        os.chmod(program.name, 0o755)
        for command in SESSION.splitlines():
            yield True, command
            for line in on_terminal(command, folder, home):
                yield False, line


def spans(is_command, text):
    """A line as pieces of SVG."""
    if is_command:
        command, mark, comment = text.partition("#")
        yield "prompt", "$ "
        yield "command", command
        yield "comment", mark + comment
        return
    kind = "output"
    for piece in re.split(r"(\x1b\[[0-9;]*m)", text):
        if code := re.fullmatch(r"\x1b\[([0-9;]*)m", piece):
            kind = {"31": "red", "32": "green", "33": "yellow"}.get(code[1], "output")
        else:
            yield kind, piece


def main():
    lines = list(record())
    step, left = 20, 20
    width, height = left * 2 + round(COLUMNS * 8.43), step * len(lines) + 36
    print(f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>A terminal session with asyncq</title>
<style>
text {{ font: 14px ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre; fill: #c9d1d9 }}
.prompt, .green {{ fill: #56d364 }} .command {{ fill: #ffffff; font-weight: bold }} .comment {{ fill: #9198a1 }}
.red {{ fill: #ff7b72 }} .yellow {{ fill: #e3b341 }}
</style>
<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" fill="#0d1117" stroke="#6e7681"/>""")
    for number, (is_command, text) in enumerate(lines):
        if is_command and len("$ " + text) > COLUMNS:
            sys.exit(f"`{text}` is too wide")
        pieces = [(kind, html.escape(piece, quote=False)) for kind, piece in spans(is_command, text) if piece]
        inner = "".join(f'<tspan class="{kind}">{piece}</tspan>' for kind, piece in pieces)
        print(f'<text x="{left}" y="{30 + step * number}" xml:space="preserve">{inner}</text>')
    print("</svg>")


main()
