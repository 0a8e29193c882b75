"""A program that an agent talks with in lines while it runs, and that does not outlive it.

For programs that run for long and are told things on the way. Making, reading and ending one blocks, so that is for native threads
(`concurrency.run_native`); `tell` and `kill` may be called from anywhere. The thread that begins a program must stay until its end, for the
kernel takes the end of that thread as the parent's death. Neither pipes of subprocess nor its waiting are used, both of which
eventlet replaces by its own.
"""
import contextlib
import os
import signal
import subprocess
import tempfile

from migrator import concurrency

#: Bytes of what a program wrote to its standard error that are kept for whoever reads the error.
SAID = 400


class Child:
    """A running program. command: list of words."""

    def __init__(self, command):
        """Begin it. Raises OSError when it cannot be."""
        self._lock = concurrency.native_lock()      # over the standard input, and over what signals the process
        self._ended = False
        with contextlib.ExitStack() as stack:
            self._said = stack.enter_context(tempfile.TemporaryFile())
            theirs_in, ours_in = os.pipe()
            stack.callback(os.close, theirs_in)
            undo = stack.enter_context(contextlib.ExitStack())
            undo.callback(os.close, ours_in)
            ours_out, theirs_out = os.pipe()
            stack.callback(os.close, theirs_out)
            undo.callback(os.close, ours_out)
            # What our own Python is told by its environment is not for another one.
            environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')} | {'LC_ALL': 'C'}
            self._process = subprocess.Popen(command, stdin=theirs_in, stdout=theirs_out, stderr=self._said, env=environment, cwd='/')
            undo.pop_all()
            self._said = os.fdopen(os.dup(self._said.fileno()), 'rb')
        self._in, self._out = ours_in, ours_out

    def lines(self):
        """Yield what it writes to its standard output, line by line, until it closes that; bytes."""
        pending = b''
        while data := os.read(self._out, 65536):
            *lines, pending = (pending + data).split(b'\n')
            yield from lines

    def tell(self, line):
        """Write a line to its standard input; one that has ended hears nothing. line: bytes, shorter than a page."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            if not self._ended:
                os.write(self._in, line + b'\n')

    def kill(self):
        """End it at once; its `lines` end with it. Harmless when it has ended."""
        with self._lock:
            if not self._ended:
                self._process.send_signal(signal.SIGKILL)

    def end(self):
        """Kill it if it still runs, wait until it is gone, and let go of it. Returns (exit code, what it said of errors)."""
        self.kill()
        while self._process.poll() is None:
            concurrency.native_sleep(0.01)
        with self._lock:
            if self._ended:
                return self._process.returncode, ''
            self._ended = True
            self._said.seek(0)
            words = self._said.read().decode(errors='replace').strip()[-SAID:]
            self._said.close()
            os.close(self._in)
            os.close(self._out)
        return self._process.returncode, words
