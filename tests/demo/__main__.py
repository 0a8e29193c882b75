"""The command `tools/demo`: python -m tests.demo [--simulated] [--keep] [--folder FOLDER]."""
import os
import sys

from migrator import concurrency

# Before anything else is imported, for that would stay unpatched. With the lab this process is a mere client; with simulated hosts it
# holds all daemons, which is no place for green threads unless they are asked for.
concurrency.setup(os.environ.get('MIGRATOR_CONCURRENCY', 'threading') if '--simulated' in sys.argv else 'threading')

import argparse  # noqa: E402
import contextlib  # noqa: E402
import pathlib  # noqa: E402
import shlex  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

import tenacity  # noqa: E402

from migrator import exceptions  # noqa: E402
from tests.demo import signals  # noqa: E402
from tests.demo.show import Show  # noqa: E402
from tests.demo.story import Failed, tell  # noqa: E402

#: Where tools/lab builds its lab too.
LAB = pathlib.Path(__file__).resolve().parents[2] / '.lab'


class NotRight(Exception):
    """The story was told to its end, and something in it was wrong."""


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
            erase(folder)
    return right


@tenacity.retry(retry=tenacity.retry_if_exception_type(OSError), wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(10),
                reraise=True)
def erase(folder):
    """Remove the demonstration's folder. An operation that was under way when it was interrupted may close its files a moment later."""
    if os.path.exists(folder):
        shutil.rmtree(folder)


def real(options, show):
    """Play the story in the lab. Returns True; raises NotRight if something was wrong, after the logs were kept."""
    from tests.demo.lab import InLab, LabError
    show.title('migrator: a live migration there and back, with RabbitMQ, libvirt and QEMU')
    try:
        with InLab(options.folder, options.keep, show) as stage:
            if not tell(stage, show):
                raise NotRight
    except LabError as error:
        raise Failed(str(error)) from error
    if options.keep:
        _how_to_go_on(options.folder, show)
    return True


def _how_to_go_on(folder, show):
    command = shlex.join([str(pathlib.Path(sys.executable).with_name('migrator')), '--config-file', f'{folder}/etc/client.conf'])
    show.heading('The lab, the daemons and the guest are still there. Go on with:')
    for words in ('host list', 'instance list', 'live-migrate demo beta --wait', 'migration list'):
        show.command(f'{command} {words}')
    where = '' if folder == str(LAB) else f' --folder {shlex.quote(folder)}'
    show.command(f'tools/lab{where} status')
    show.command(f'tools/lab{where} down')


def arguments(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='tools/demo', description='Shows a guest that is live-migrated there and back while it writes.')
    parser.add_argument('--simulated', action='store_true',
                        help='simulated hosts, messages in memory and SQLite in one process: needs neither root nor libvirt')
    parser.add_argument('--keep', action='store_true', help='leave the lab, the daemons and the guest, and say how to go on with them')
    parser.add_argument('--folder', default=str(LAB), type=os.path.abspath, help='the folder of the lab (default: .lab in the source tree)')
    options = parser.parse_args(argv)
    if options.simulated and options.keep:
        parser.error('simulated hosts end with the process: --keep is for the lab')
    return options


def main(argv):
    """Run the demonstration. Returns the exit code: 0 if all was right, 1 if not."""
    options = arguments(argv)
    signals.listen()
    show, started = Show(), time.monotonic()
    try:
        right = simulated(show) if options.simulated else real(options, show)
    except NotRight:
        right = False
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
