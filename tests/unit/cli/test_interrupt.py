"""^C while somebody waits: a line that says what goes on and how to follow it again, exit code 130, and never a traceback."""
import os
import pathlib
import signal
import subprocess
import sys

from migrator.cli import interrupt
from tests import base
from tests.unit.cli.support import MIGRATION, OTHER, Answers, CommandCase, migration

ROOT = pathlib.Path(__file__).resolve().parents[3]
LINE = ('migrator: interrupted; the live migration of web-1 goes on by itself; '
        f'follow it again with `migrator migration watch {MIGRATION}`\n')

#: A command line whose conductor tells of the same migration for ever, and whose connection does not close.
PROGRAM = """
import sys, time
from migrator.cli import connect, main
from tests.unit.cli.support import MIGRATION, Conductor, migration

class Stuck(Conductor):
    def close(self):
        print('closing', flush=True)
        time.sleep(60)

main.CLOSE_SECONDS = 60
connect.conductor_api = lambda *_: Stuck({'show': migration(), 'live_migrate': migration()})
print('begins', flush=True)
sys.exit(main.main(sys.argv[1:]))
"""


class ProcessTest(base.TestCase):

    def start(self, *argv):
        process = subprocess.Popen([sys.executable, '-c', PROGRAM, *argv], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's `&` has it ignored
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual('begins\n', process.stdout.readline())
        return process

    def test_twice_while_it_watches(self):
        """Given a watch that was interrupted and is slow to end, another ^C ends it at once, with nothing more to read."""
        process = self.start('migration', 'watch', MIGRATION)
        self.assertIn('web-1', process.stdout.readline())
        process.send_signal(signal.SIGINT)
        self.assertEqual('closing\n', process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        self.assertEqual((130, '', LINE), (process.returncode, out, err))

    def test_a_process_that_has_it_ignored_goes_on_ignoring_it(self):
        earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGINT, earlier)
        interrupt.listen(None)
        self.assertIs(signal.SIG_IGN, signal.getsignal(signal.SIGINT))


class SentenceTest(CommandCase):

    def test_a_wait_says_how_to_follow_it_again(self):
        result = self.run_cli('live-migrate', 'web-1', 'host-b', '--wait', live_migrate=migration('checking'),
                              show=Answers([migration(), KeyboardInterrupt()]))
        self.assertEqual((130, '', LINE), (result.code, result.out, result.err))

    def test_a_watch_names_those_that_go_on(self):
        """Given one that has ended and one that has not, only the latter is to be followed; given none that answered yet, all are."""
        ended, other = migration('completed'), migration(id=OTHER, instance_name='db-1')
        argv = ('migration', 'watch', MIGRATION, OTHER)
        result = self.run_cli(*argv, show=Answers([ended, other, KeyboardInterrupt()]))
        self.assertTrue(result.err.endswith(f'of db-1 goes on by itself; follow it again with `migrator migration watch {OTHER}`\n'))
        result = self.run_cli(*argv, show=Answers([KeyboardInterrupt()]))
        self.assertEqual('migrator: interrupted; 2 migrations go on by themselves; follow them again with '
                         f'`migrator migration watch {MIGRATION} {OTHER}`\n', result.err)
        result = self.run_cli(*argv[:3], show=Answers([KeyboardInterrupt()]))
        self.assertIn('interrupted; the migration goes on by itself; follow it again', result.err)

    def test_nothing_that_is_waited_for(self):
        result = self.run_cli('host', 'list', hosts=KeyboardInterrupt())
        self.assertEqual((130, 'migrator: interrupted; what was asked for goes on\n'), (result.code, result.err))
