"""The command `tools/demo`: python -m tests.demo [--simulated] [--keep] [--folder FOLDER]."""
from migrator import concurrency

concurrency.setup()  # before anything else is imported: what is imported before the patch stays unpatched

import argparse  # noqa: E402
import contextlib  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

from migrator import exceptions  # noqa: E402
from tests.demo import signals  # noqa: E402
from tests.demo.show import Show  # noqa: E402
from tests.demo.story import Failed, tell  # noqa: E402


def simulated(show):
    """Play the story with simulated hosts. Returns True if all was right; else the folder with the log is kept and named."""
    from tests.demo.simulated import Simulated
    folder, keep, right = tempfile.mkdtemp(prefix='migrator-demo-'), True, False
    try:
        show.title('migrator: a live migration there and back, between simulated hosts')
        with contextlib.ExitStack() as stack:
            with show.working('one conductor, two simulated hosts, messages in memory, SQLite'):
                stage = stack.enter_context(Simulated(folder))
            right = tell(stage, show)
        keep = not right
    except signals.Interrupted:
        keep = False
        raise
    finally:
        if keep:
            show.error(f'The log is in {folder}/demo.log')
        else:
            shutil.rmtree(folder)
    return right


def arguments(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='tools/demo', description='Shows a guest that is live-migrated there and back while it writes.')
    parser.add_argument('--simulated', action='store_true',
                        help='simulated hosts, messages in memory and SQLite in one process: needs neither root nor libvirt')
    return parser.parse_args(argv)


def main(argv):
    """Run the demonstration. Returns the exit code: 0 if all was right, 1 if not."""
    arguments(argv)
    signals.listen()
    show, started = Show(), time.monotonic()
    try:
        right = simulated(show)
    except (Failed, exceptions.MigratorError) as error:
        show.error(f'The demonstration failed: {error}')
        right = False
    except signals.Interrupted as interrupted:
        show.error('interrupted; everything has been cleaned up')
        return 128 + interrupted.number
    show.line('')
    show.title(f'{"Everything is as it should be" if right else "Not everything is as it should be"} '
               f'({time.monotonic() - started:.1f} s)')
    return 0 if right else 1


if __name__ == '__main__':
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # threads that serve messages in memory end with the process
