"""The agent's side of the host copy, with a copier that says what it is told to."""
import json
import os
import queue
import threading

import fixtures

from migrator import exceptions
from migrator.rpc import volume_facts as facts
from migrator.rpc.journal import Journal, Operation
from migrator.volume import copying
from tests import base

MIGRATION = '6a1f0f2e-52a2-4d5e-9d0f-0b6d8f7f1d11'
SOURCE = copying.End('nbd://127.0.0.1:1/a', 'h1@one#fast/volume')
DESTINATION = copying.End('nbd://127.0.0.1:2/b', 'h2@two#fast/volume-6a1f0f2e')
COMPLETE = {'ended': 'complete', 'moved': 512, 'start': 0}


class ScriptedChild:
    """A program in the test's hands: `say` lets it speak, `finish` ends it."""

    def __init__(self, command):
        self.command, self.told, self.code, self.said = command, [], 0, ''
        self._lines = queue.Queue()
        self.ended = self.killed = False

    def say(self, **words):
        self._lines.put(json.dumps(words).encode())

    def finish(self, code, said='', **words):
        if words:
            self.say(**words)
        self.code, self.said = code, said
        self._lines.put(None)

    def lines(self):
        return iter(lambda: self._lines.get(timeout=10), None)

    def tell(self, line):
        self.told.append(json.loads(line))

    def kill(self):
        self.killed = True
        self.finish(-9)

    def end(self):
        self.ended = True
        return self.code, self.said


class CopyingTest(base.TestCase):
    """Given an agent's copies, and copiers that the test plays."""

    def setUp(self):
        super().setUp()
        self.children = queue.Queue()
        self.copying = copying.Copying(str(self.temp_dir / 'copies'), self.begin)

    def begin(self, command):
        child = ScriptedChild(command)
        self.children.put(child)
        return child

    def start(self, method, *arguments, **options):
        """Call in a thread; returns (what it came to, the copier): wait for the first with `came_to`."""
        outcome = queue.Queue()

        def call():
            try:
                outcome.put(getattr(self.copying, method)(MIGRATION, SOURCE, DESTINATION, *arguments, **options))
            except exceptions.MigratorError as error:
                outcome.put(error)
        threading.Thread(target=call, daemon=True).start()
        return outcome, self.children.get(timeout=10)

    def came_to(self, outcome, child):
        result = outcome.get(timeout=10)
        self.assertTrue(child.ended)
        self.assertEqual([], self.copying.running())
        self.assertEqual(facts.Progress(), self.copying.progress(MIGRATION))
        return result

    def fail_with(self, code, said='', **words):
        outcome, child = self.start('copy')
        child.finish(code, said, **words)
        return self.came_to(outcome, child)

    def test_a_copy_has_its_checkpoint_and_both_names(self):
        outcome, child = self.start('copy', rate=1000)
        options = ['--patience', '60.0', '--rate', '1000', '--parent', str(os.getpid())]
        self.assertEqual(['copy', SOURCE.uri, DESTINATION.uri, str(self.temp_dir / 'copies' / f'copy-{MIGRATION}.json'), '--identity',
                          f'{SOURCE.name} {DESTINATION.name}', *options], child.command[2:])
        child.finish(0, **COMPLETE)
        self.assertEqual(512, self.came_to(outcome, child)['bytes'])

    def test_progress_is_what_the_copier_says(self):
        outcome, child = self.start('copy')
        self.assertEqual(facts.Progress(active=True), self.copying.progress(MIGRATION))
        child.say(done=512, total=2048, moved=100, rate=7)
        self.wait_for(lambda: self.copying.progress(MIGRATION) == facts.Progress(True, 2048, 512, 7), 'progress')
        child.finish(0, **COMPLETE)
        self.came_to(outcome, child)

    def test_a_new_rate_is_passed_on(self):
        self.assertFalse(self.copying.set_rate(MIGRATION, 5))
        outcome, child = self.start('copy')
        self.wait_for(lambda: self.copying.set_rate(MIGRATION, 5) and child.told, 'the copier to hear of it')
        self.assertEqual({'rate': 5}, child.told[-1])
        child.finish(0, **COMPLETE)
        self.came_to(outcome, child)

    def lose(self, child, done=None):
        """The copier comes so far, and loses the destination."""
        if done is not None:
            child.say(done=done, total=2048, moved=done, rate=7)
        child.finish(1, ended='error', end='destination', errno=0, error='the connection was lost', lost=True)

    def test_an_array_that_is_lost_is_tried_again(self):
        """Given a copy that has lost an array, then another copier goes on, with the rate as it is by then; what both moved is counted."""
        self.useFixture(fixtures.MonkeyPatch('migrator.volume.copying.AGAIN_SECONDS', 0.01))
        outcome, child = self.start('copy', rate=1000)
        self.lose(child, 512)
        child = self.children.get(timeout=10)
        self.assertTrue(self.copying.set_rate(MIGRATION, 5))
        self.lose(child)
        child = self.children.get(timeout=10)
        self.assertEqual('5', child.command[child.command.index('--rate') + 1])
        child.finish(0, **COMPLETE)
        self.assertEqual(1024, self.came_to(outcome, child)['bytes'])

    def test_an_array_that_does_not_come_back_is_given_up(self):
        """Given patience that is over, or an end that was never reached, then it is an error; with what comes further patience is new."""
        now = [0.0]
        self.copying = copying.Copying(str(self.temp_dir / 'copies'), self.begin, clock=lambda: now[0], patience=60.0)
        self.useFixture(fixtures.MonkeyPatch('migrator.volume.copying.AGAIN_SECONDS', 0.01))
        self.assertIn('connection was lost', str(self.fail_with(
            1, ended='error', end='source', errno=111, error='the connection was lost', lost=True)))
        outcome, child = self.start('copy')
        for done, later in ((512, 59.0), (None, 2.0), (1024, 59.0), (None, 0.0)):
            self.lose(child, done)
            child = self.children.get(timeout=10)
            now[0] += later
        now[0] += 2.0
        self.lose(child)
        self.assertEqual('the copy stopped; the destination: the connection was lost', str(self.came_to(outcome, child)))

    def test_a_copy_that_waits_for_an_array_is_cancelled(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.volume.copying.AGAIN_SECONDS', 60))
        outcome, child = self.start('copy')
        self.lose(child, 512)
        self.wait_for(lambda: child.ended, 'the pause')
        self.assertTrue(self.copying.cancel(MIGRATION))
        self.children.get(timeout=10)
        self.assertEqual('MigrationAborted', outcome.get(timeout=10).kind)

    def test_what_is_cancelled_ends(self):
        self.assertFalse(self.copying.cancel(MIGRATION))
        outcome, child = self.start('copy')
        self.assertTrue(self.copying.cancel(MIGRATION))
        self.assertEqual('MigrationAborted', self.came_to(outcome, child).kind)
        self.assertTrue(child.killed)

    def test_cancelled_in_the_last_moment_it_is_complete_all_the_same(self):
        outcome, child = self.start('copy')
        child.finish(0, **COMPLETE)
        self.copying.cancel(MIGRATION)
        self.assertEqual(512, self.came_to(outcome, child)['bytes'])

    def test_an_agent_that_stops_ends_copies_and_begins_none(self):
        outcome, child = self.start('copy')
        self.copying.stop()
        self.assertEqual('AgentDraining', self.came_to(outcome, child).kind)
        self.assertRaises(exceptions.AgentDraining, self.copying.copy, MIGRATION, SOURCE, DESTINATION)

    def test_one_at_a_time(self):
        outcome, child = self.start('copy')
        self.assertEqual([MIGRATION], self.copying.running())
        self.assertRaises(exceptions.AgentBusy, self.copying.verify, MIGRATION, SOURCE, DESTINATION)
        self.assertRaises(exceptions.PreconditionFailed, self.copying.forget, MIGRATION)
        child.finish(0, **COMPLETE)
        self.came_to(outcome, child)

    def test_a_full_destination_is_no_space(self):
        error = self.fail_with(1, ended='error', end='destination', errno=28, error='No space left on device')
        self.assertEqual(('NoSpace', 'the copy stopped; the destination: No space left on device'), (error.kind, str(error)))
        self.assertEqual('DriverError', self.fail_with(1, ended='error', end='source', errno=28, error='?').kind)

    def test_other_ends_are_told_in_words(self):
        for words, how in (('the source: it is gone', {'code': 1, 'ended': 'error', 'end': 'source', 'errno': 5, 'error': 'it is gone'}),
                           ('did not answer in time', {'code': -14}), ('signal 11', {'code': -11}),
                           ('exit code 1: no module nbd', {'code': 1, 'said': 'no module nbd'}), ('exit code 0', {'code': 0})):
            error = self.fail_with(**how)
            self.assertEqual('DriverError', error.kind)
            self.assertIn(words, str(error))

    def test_a_copier_that_talks_nonsense_is_ended(self):
        outcome, child = self.start('copy')
        child._lines.put(b'Segmentation fault')
        self.assertEqual('DriverError', self.came_to(outcome, child).kind)

    def test_a_copier_that_cannot_be_run_is_an_error_in_words(self):
        def begin(command):
            raise FileNotFoundError(2, 'No such file or directory')
        copies = copying.Copying(str(self.temp_dir), begin)
        error = self.assertRaises(exceptions.DriverError, copies.copy, MIGRATION, SOURCE, DESTINATION)
        self.assertIn('No such file', str(error))
        self.assertEqual([], copies.running())

    def test_a_sample_is_the_same_at_each_repetition(self):
        outcome, child = self.start('verify', 'sampled')
        self.assertEqual(['verify', SOURCE.uri, DESTINATION.uri, '--samples', '256', '--seed', MIGRATION], child.command[2:9])
        child.finish(0, ended='complete', digest='ab', compared=512)
        self.assertEqual({'digest': 'ab', 'how': 'sampled'}, self.came_to(outcome, child))

    def test_a_difference_is_an_error_that_names_both(self):
        outcome, child = self.start('verify', 'full')
        self.assertNotIn('--samples', child.command)
        child.finish(3, ended='different', offset=4096)
        self.assertEqual(f'{DESTINATION.name} differs from {SOURCE.name} at byte 4096: the copy cannot be used',
                         str(self.came_to(outcome, child)))

    def test_the_journal_learns_how_far_interrupted_copies_came(self):
        """Given an agent that ended in a copy, in another one that had recorded nothing, and in a comparison, when the next process looks,
        then what it reports tells of both copies how far they came."""
        path, others = str(self.temp_dir / 'journal.db'), [MIGRATION.replace('6a1f', part) for part in ('7b20', '8c31')]
        journal = Journal(path)
        for known, method in ((MIGRATION, 'copy_volume'), (others[0], 'copy_volume'), (others[1], 'verify_volume')):
            journal.begin(Operation(f'{known}/{method}/1', known, 1, method, '', 'p-1'))
        journal.close()
        for known, text in ((MIGRATION, '{"done": 4096}'), (others[1], '{"done": 7}')):
            (self.temp_dir / 'copies' / f'copy-{known}.json').write_text(text)
        journal = Journal(path)
        self.addCleanup(journal.close)
        for _ in range(2):
            self.copying.recall(journal)
            self.assertEqual([{'done': 4096}, {'done': 0}, {}], [o.result for o in sorted(journal.unreported(), key=lambda o: o.op_id)])
        journal.acknowledge(f'{MIGRATION}/copy_volume/1')
        (self.temp_dir / 'copies' / f'copy-{MIGRATION}.json').write_text('nonsense')
        self.assertEqual(0, self.copying.reached(MIGRATION))
        self.copying.recall(journal)
        self.assertEqual({'done': 4096}, journal.get(f'{MIGRATION}/copy_volume/1').result)

    def test_what_is_kept_of_copies_is_known_but_of_those_that_run(self):
        """Given what copies have left, in whole or in part, and things of others, then the copies are named that do not run."""
        others = [MIGRATION.replace('6a1f', part) for part in ('7b20', '8c31')]
        outcome, child = self.start('copy')
        for name in (f'copy-{MIGRATION}.json', f'copy-{others[1]}.json', f'copy-{others[1]}.json.lock', f'copy-{others[0]}.json.new',
                     'copy-.json', f'{others[0]}.json', f'copy-{"-" * 36}.json'):
            (self.temp_dir / 'copies' / name).write_text('{}')
        self.assertEqual(others, self.copying.kept())
        child.finish(0, **COMPLETE)
        self.came_to(outcome, child)
        self.assertEqual([MIGRATION, *others], self.copying.kept())
        os.utime(self.temp_dir / 'copies' / f'copy-{others[1]}.json.lock', (1, 1))
        self.assertLess(self.copying.age(others[1]), 3600)
        os.utime(self.temp_dir / 'copies' / f'copy-{others[1]}.json', (1, 1))
        self.assertGreater(self.copying.age(others[1]), 3600)
        for known in (MIGRATION, *others):
            self.copying.forget(known)
        self.assertEqual([], self.copying.kept())

    def test_a_forgotten_copy_has_no_checkpoint(self):
        path = self.temp_dir / 'copies' / f'copy-{MIGRATION}.json'
        path.write_text('{}')
        self.copying.forget(MIGRATION)
        self.copying.forget(MIGRATION)
        self.assertFalse(path.exists())

    def test_nothing_is_copied_to_itself(self):
        for end in (copying.End(SOURCE.uri, 'another'), copying.End('nbd://127.0.0.1:2/b', SOURCE.name)):
            for method in (self.copying.copy, self.copying.verify):
                self.assertRaises(exceptions.InvalidRequest, method, MIGRATION, SOURCE, end)

    def test_an_end_with_tls_has_its_credentials(self):
        self.assertEqual('nbds://a:1/x?tls-certificates=/etc/our%20keys', copying.End('nbds://a:1/x', 'x', '/etc/our keys').address)

    def test_only_ids_become_names_of_files(self):
        self.assertRaises(exceptions.InvalidRequest, self.copying.copy, '../../etc/passwd', SOURCE, DESTINATION)
        self.assertRaises(exceptions.InvalidRequest, self.copying.forget, 'x/y')
