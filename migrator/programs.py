"""Run a program to its end, from a native thread.

Neither pipes nor the time-outs of subprocess are used: both go by select and by classes that eventlet replaces, and native threads must
not touch those. What a program says goes to files, and its end is looked for.
"""
import os
import subprocess
import tempfile

from migrator import concurrency, exceptions

#: Seconds between two looks whether a program has ended; and longest text of its error that is passed on.
LOOK, SAID = 0.01, 400


def run(command, timeout):
    """Run a program and wait for its end; returns what it wrote to its standard output, as text.

    command: list of words. timeout: seconds after which it is killed. Raises DriverError in words when it cannot be run, fails or takes
    longer; it may have had effects even then. Blocks, so it is for native threads (concurrency.run_native).
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=complained, env={**os.environ, 'LC_ALL': 'C'})
        except OSError as error:
            raise exceptions.DriverError(f'{command[0]} cannot be run: {error.strerror}') from None
        for _ in range(max(1, round(timeout / LOOK))):
            if process.poll() is not None:
                break
            concurrency.native_sleep(LOOK)
        else:
            process.kill()
            process.wait()
            raise exceptions.DriverError(f'{command[0]} took longer than {timeout:g} s')
        if process.returncode:
            words = _text(complained).strip()[-SAID:]
            raise exceptions.DriverError(f'{command[0]} failed: {words or process.returncode}')
        return _text(said)


def _text(file):
    file.seek(0)
    return file.read().decode(errors='replace')
