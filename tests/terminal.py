"""A terminal for tests: runs a command on it, and gives the lines that stay on its screen."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading


def run(command, columns=100, **options):
    """The exit code of `command` and everything that it writes to a terminal of this width."""
    import subprocess

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    parts = []

    def read():
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                return
            if not part:
                return
            parts.append(part)

    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, **options) as process:
        os.close(slave)
        reader = threading.Thread(target=read)
        reader.start()
        code = process.wait()
        reader.join()
    os.close(master)
    return code, b"".join(parts).decode()


def screen(written):
    """The lines of a screen, which scrolls, after `written`."""
    lines, row, column = [[]], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Za-z]|.", written, re.DOTALL):
        if part == "\n":
            row, column = row + 1, 0
            lines += [[]] * (row == len(lines))
        elif part == "\r":
            column = 0
        elif part == "\x1b[A":
            row -= 1
        else:
            assert not part.startswith("\x1b"), f"the screen lacks {part!r}"
            lines[row] += " " * (column + 1 - len(lines[row]))
            lines[row][column] = part
            column += 1
    return ["".join(line).rstrip() for line in lines]


def python(script, **environment):
    """A command that runs `script`, and its environment, in which a terminal is not treated as a log."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    return [sys.executable, "-c", script], kept | environment
