"""The demonstration in the lab, as a user runs it: it succeeds and leaves nothing; interrupted or broken it says so, and leaves nothing."""
import json
import os
import pathlib
import signal
import subprocess
import sys

from tests import base
from tests.lab import processes, record

ROOT = pathlib.Path(__file__).resolve().parents[2]


class DemoTest(base.TestCase):

    timeout = 300

    def setUp(self):
        super().setUp()
        self.folder = self.temp_dir / 'lab'
        self.logs = self.temp_dir / 'lab-logs'
        identity = record.lab_id(self.folder)
        self.addCleanup(lambda: subprocess.run([sys.executable, '-m', 'tests.lab', '--folder', str(self.folder), 'down'], cwd=ROOT,
                                               check=True, timeout=60, capture_output=True))
        self.note = record.REGISTRY / f'{identity}.folder'
        self.identity = identity

    def start(self, *options):
        """Start the demonstration; ^C reaches it even where the test runner has it ignored."""
        process = subprocess.Popen([sys.executable, '-u', '-m', 'tests.demo', '--folder', str(self.folder), *options], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def until(self, process, words):
        """Read the output up to a line with `words`; returns it."""
        output = ''
        for line in process.stdout:
            output += line
            if words in line:
                return output
        return self.fail(f'{words!r} was never said: {output}')

    def assert_nothing_left(self):
        self.assertFalse(self.folder.exists())
        self.assertFalse(self.note.exists())
        self.assertEqual({}, record.keepers(self.identity))

    def test_it_succeeds_and_leaves_nothing(self):
        process = self.start()
        output = process.communicate(timeout=240)[0]
        self.assertEqual(0, process.returncode, output)
        for words in ('from alpha to beta', 'from beta to alpha', 'longest pause of ticks', 'post_live_migration_at_source',
                      'without a tick missing', 'records that it knew to be written', 'has left nothing on either host',
                      'Everything is as it should be'):
            self.assertIn(words, output)
        self.assertNotIn('WRONG', output)
        self.assert_nothing_left()
        self.assertFalse(self.logs.exists())

    def test_interrupted_it_leaves_nothing(self):
        process = self.start()
        output = self.until(process, 'copying')
        process.send_signal(signal.SIGINT)
        output += process.stdout.read()
        self.assertEqual(130, process.wait(60), output)
        self.assert_nothing_left()

    def test_broken_it_fails_and_keeps_the_logs(self):
        process = self.start()
        output = self.until(process, 'copying')
        os.kill(json.loads((self.folder / 'daemons' / 'conductor.json').read_text())['pid'], signal.SIGKILL)
        output += process.stdout.read()
        self.assertEqual(1, process.wait(60), output)
        self.assert_nothing_left()
        self.assertIn(f'{self.logs}/log/conductor.log', output)
        self.assertIn('live_migration', (self.logs / 'log' / 'conductor.log').read_text())

    def test_in_a_lab_that_is_up_it_leaves_that_as_it_was(self):
        def lab(*words):
            return subprocess.run([sys.executable, '-m', 'tests.lab', '--folder', str(self.folder), *words], cwd=ROOT, check=True,
                                  timeout=120, capture_output=True, text=True).stdout
        lab('up', '--no-broker')
        process = self.start()
        output = self.until(process, 'copying')
        process.send_signal(signal.SIGTERM)
        output += process.stdout.read()
        self.assertEqual(143, process.wait(90), output)
        status = json.loads(lab('status', '--json'))
        self.assertEqual(('up', [0, 0], []), (status['state'], [host['guests'] for host in status['hosts']], status['daemons']), output)
        for host in status['hosts']:
            files = [path.name for path in (self.folder / 'hosts' / host['name'] / 'instances').iterdir() if path.is_dir()]
            self.assertEqual([], files)

    def test_killed_in_a_lab_that_stays_its_daemons_end_and_the_next_one_removes_its_guest(self):
        subprocess.run([sys.executable, '-m', 'tests.lab', '--folder', str(self.folder), 'up'], cwd=ROOT, check=True, timeout=120,
                       capture_output=True)
        process = self.start()
        self.until(process, 'copying')
        daemons = [json.loads(path.read_text())['pid'] for path in (self.folder / 'daemons').glob('*.json')]
        self.assertEqual(3, len(daemons))
        process.kill()
        self.wait_for(lambda: not any(processes.alive(pid) for pid in daemons), 'the end of the daemons')
        second = self.start()
        output = self.until(second, 'of memory, a disk of')
        self.assertIn('guest demo runs on', output)
        second.send_signal(signal.SIGINT)
        output += second.stdout.read()
        self.assertEqual(130, second.wait(90), output)
        status = subprocess.run([sys.executable, '-m', 'tests.lab', '--folder', str(self.folder), 'status', '--json'], cwd=ROOT, timeout=60,
                                capture_output=True, text=True).stdout
        self.assertEqual([0, 0], [host['guests'] for host in json.loads(status)['hosts']], output)
