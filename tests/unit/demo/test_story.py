"""The demonstration: it succeeds with simulated hosts within its time, cleans up when interrupted, and fails when anything is wrong."""
import io
import os
import pathlib
import signal
import subprocess
import sys
import time

from tests import base
from tests.demo import show, story

ROOT = pathlib.Path(__file__).resolve().parents[3]
#: What the demonstration may take at most.
SECONDS = 10
COMPLETED = {
    'id': 'm1', 'kind': 'live_migration', 'status': 'completed', 'reason': 'done', 'error': '', 'progress': {},
    'created_at': '2026-01-01T00:00:00.000Z', 'finished_at': '2026-01-01T00:00:01.250Z', 'statistics': {'downtime_ms': 40},
    'events': [{'at': '2026-01-01T00:00:00.500Z', 'status': 'completed', 'step': 'a_step', 'what': 'end', 'reason': 'the reason'}]}


class ScriptedApi:
    """Answers as a conductor whose every migration ends at once."""

    def __init__(self):
        self.migration = dict(COMPLETED)
        self.instance = {'host': 'alpha', 'state': 'running', 'locked_by': '', 'debts': 0}
        self.attention = []

    def instance_create(self, host, spec):
        return {'id': 'c1'}

    def live_migrate(self, instance, destination_host, options):
        return {'id': 'm1'}

    def show(self, migration):
        return self.migration if migration == 'm1' else dict(COMPLETED)

    def instance_show(self, instance):
        return self.instance

    def list(self, filters):
        return self.attention


class ScriptedStage(story.Stage):
    """A guest that counts at each look."""

    hosts = ('alpha', 'beta')
    patience = 0.05
    interval = 0.01

    def __init__(self):
        self.api, self.findings, self.count, self.step = ScriptedApi(), [], 0, 1

    def spec(self):
        return {'uuid': 'u1', 'name': 'demo', 'memory_mib': 64, 'disks': [{'size': 1 << 20}]}

    def guest_count(self):
        self.count += self.step
        return self.count

    def guest_words(self):
        return f'write {self.count}'

    def wait_alive(self):
        return None

    def before_move(self):
        return None

    def after_move(self, before, view):
        return [('silence', '90 ms')]

    def inspect(self):
        return self.findings


class StoryTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.stage, self.output = ScriptedStage(), io.StringIO()

    def tell(self):
        return story.tell(self.stage, show.Show(self.output))

    def test_all_right(self):
        self.assertTrue(self.tell())
        for part in ('1.25 s', '40 ms', '90 ms', 'the reason', 'from beta to alpha'):
            self.assertIn(part, self.output.getvalue())
        self.assertNotIn('WRONG', self.output.getvalue())

    def test_what_the_stage_finds_wrong_counts(self):
        self.stage.findings = [story.Finding(True, 'good'), story.Finding(False, 'a record is missing')]
        self.assertFalse(self.tell())
        self.assertIn('WRONG a record is missing', self.output.getvalue())

    def test_a_guest_that_stood_still_counts(self):
        self.stage.step = 0
        self.assertFalse(self.tell())

    def test_a_wrong_catalogue_counts(self):
        for wrong in ({'host': 'beta'}, {'state': 'stopped'}, {'locked_by': 'm1'}, {'debts': 1}):
            self.stage.api.instance = {'host': 'alpha', 'state': 'running', 'locked_by': '', 'debts': 0, **wrong}
            self.assertFalse(self.tell(), wrong)

    def test_a_migration_that_needs_attention_counts(self):
        self.stage.api.attention = [COMPLETED]
        self.assertFalse(self.tell())

    def test_a_migration_that_fails_ends_the_story_with_its_timeline(self):
        self.stage.api.migration.update(status='failed', error='no room')
        self.assertIn('no room', str(self.assertRaises(story.Failed, self.tell)))
        self.assertIn('a_step', self.output.getvalue())

    def test_a_migration_that_never_ends(self):
        self.stage.api.migration['status'] = 'running'
        self.assertIn('still running', str(self.assertRaises(story.Failed, self.tell)))


class SimulatedTest(base.TestCase):

    def start(self):
        environment = {**os.environ, 'TMPDIR': str(self.temp_dir), 'PYTHONUNBUFFERED': '1'}
        environment.pop('COLUMNS', None)
        process = subprocess.Popen([sys.executable, '-m', 'tests.demo', '--simulated'], cwd=ROOT, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's `&` has it ignored
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def run_to_end(self):
        """Run it once; returns what it said and how many seconds it took."""
        started = time.monotonic()
        process = self.start()
        output = process.communicate(timeout=40)[0]
        self.assertEqual(0, process.returncode, output)
        return output, time.monotonic() - started

    def test_it_succeeds_in_time_and_leaves_nothing(self):
        output, took = self.run_to_end()
        if took >= SECONDS:      # the machine may have been busy with other tests; twice in a row would be slowness of our own
            output, took = self.run_to_end()
        self.assertLess(took, SECONDS * float(os.environ.get('MIGRATOR_TEST_TIMEOUT_SCALE', '1')), output)
        for part in ('from alpha to beta', 'from beta to alpha', 'post_live_migration_at_source', 'downtime',
                     'one copy of the guest exists: running on alpha', 'Everything is as it should be'):
            self.assertIn(part, output)
        self.assertNotIn('WRONG', output)
        self.assertEqual([], os.listdir(self.temp_dir))

    def test_interrupted_it_says_so_and_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start()
            for line in process.stdout:
                if 'copying' in line:
                    break
            process.send_signal(number)
            output = process.stdout.read()
            self.assertEqual(128 + number, process.wait(20), output)
            self.assertIn('interrupted', output)
            self.assertEqual([], os.listdir(self.temp_dir))


class CommandTest(base.TestCase):

    def test_a_command_is_one_line_however_long(self):
        output = io.StringIO()
        words = f'{"/some/long/folder" * 12}/migrator --config-file {"/another" * 12}/client.conf live-migrate demo beta --wait'
        show.Show(output).command(words)
        self.assertEqual(f'  {words}\n', output.getvalue())
