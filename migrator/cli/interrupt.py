"""^C on the command line: the first one ends the command in order, another one at once. Neither shows where in the program it hit.

What was asked for goes on in either case, for the conductors do it; what is said tells how to follow it again.
"""
import os
import signal

from migrator.cli import exit_codes, output
from migrator.states import Status

#: Has a terminal show its cursor again, which a display of progress has hidden.
SHOW_CURSOR = b'\x1b[?25h'


def sentence(watched):
    """Say what goes on by itself and how to follow it again. watched: migration id -> its last view, or None if none came."""
    going = [name for name, view in watched.items() if view is None or not Status(view['status']).terminal]
    if not going:
        return 'interrupted; what was asked for goes on'
    view = watched[going[0]]
    if len(going) > 1:
        who = f'{len(going)} migrations go on by themselves; follow them'
    else:
        who = f'the {output.kind(view["kind"])} of {output.guest(view)} goes on' if view else 'the migration goes on'
        who += ' by itself; follow it'
    return f'interrupted; {who} again with `migrator migration watch {" ".join(going)}`'


def listen(app):
    """Take ^C from now on, unless whoever started the process has it ignored. app: with last_words()."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    heard = []

    def handle(_number, _frame):
        heard.append(True)
        if len(heard) == 1:
            raise KeyboardInterrupt
        leave(app)
    signal.signal(signal.SIGINT, handle)


def leave(app):
    """End the process at once. Nothing that is buffered is used: whatever was interrupted may be writing."""
    for stream in (1, 2):
        if os.isatty(stream):
            os.write(stream, SHOW_CURSOR)
    line = app.last_words()
    if line:
        os.write(2, line.encode())
    os._exit(exit_codes.INTERRUPTED)
