"""The agent's journal: what it keeps across a restart, and that damage does not keep the agent from starting."""
import os
import sqlite3

import fixtures
import testtools

from migrator import exceptions
from migrator.rpc.journal import Journal, Operation
from migrator.states import OperationState


def operation(op_id='m1/pre/1', migration_id='m1', epoch=3, digest='d'):
    return Operation(op_id=op_id, migration_id=migration_id, epoch=epoch, method='pre', digest=digest, process_id='p1')


class JournalTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.useFixture(fixtures.TempDir()).path, 'state', 'h-journal.db')
        self.now = 1000.0
        self.journal = self.open()

    def open(self):
        journal = Journal(self.path, clock=lambda: self.now)
        self.addCleanup(journal.close)
        return journal

    def reopen(self):
        self.journal.close()
        self.journal = self.open()

    def test_an_operation_is_running_until_it_is_finished(self):
        self.journal.begin(operation())
        self.assertEqual(OperationState.RUNNING, self.journal.get('m1/pre/1').state)
        self.now = 1002.0
        self.journal.finish('m1/pre/1', OperationState.SUCCEEDED, {'size': 5})
        found = self.journal.get('m1/pre/1')
        self.assertEqual((OperationState.SUCCEEDED, {'size': 5}, 1000.0, 1002.0, False),
                         (found.state, found.result, found.started, found.finished, found.reported))

    def test_an_unknown_operation_is_none(self):
        self.assertIsNone(self.journal.get('m1/pre/1'))
        self.assertEqual(-1, self.journal.highest_epoch('m1'))

    def test_the_same_op_id_cannot_begin_twice(self):
        self.journal.begin(operation())
        self.assertRaises(sqlite3.IntegrityError, self.journal.begin, operation(epoch=9))
        self.assertEqual(3, self.journal.highest_epoch('m1'), 'the failed transaction left something behind')

    def test_an_outcome_is_never_changed(self):
        self.journal.begin(operation())
        self.journal.finish('m1/pre/1', OperationState.FAILED, {}, 'DriverError', 'no')
        self.journal.finish('m1/pre/1', OperationState.SUCCEEDED, {'late': True})
        self.assertEqual((OperationState.FAILED, 'DriverError', 'no'),
                         (lambda o: (o.state, o.error_type, o.error))(self.journal.get('m1/pre/1')))

    def test_what_ran_when_the_agent_died_is_interrupted_and_is_to_be_reported(self):
        self.journal.begin(operation())
        self.reopen()
        self.assertEqual(OperationState.INTERRUPTED, self.journal.get('m1/pre/1').state)
        self.assertEqual(['m1/pre/1'], [o.op_id for o in self.journal.unreported()])

    def test_outcomes_epochs_and_aborts_survive_a_restart(self):
        self.journal.begin(operation())
        self.journal.finish('m1/pre/1', OperationState.FAILED, {'a': [1]}, 'DriverError', 'broken')
        self.journal.abort('m2')
        self.reopen()
        found = self.journal.get('m1/pre/1')
        self.assertEqual((OperationState.FAILED, {'a': [1]}, 'DriverError', 'broken'),
                         (found.state, found.result, found.error_type, found.error))
        self.assertEqual(3, self.journal.highest_epoch('m1'))
        self.assertTrue(self.journal.aborted('m2'))
        self.assertFalse(self.journal.aborted('m1'))

    def test_only_finished_and_unacknowledged_operations_are_to_be_reported(self):
        for n in (1, 2, 3):
            self.journal.begin(operation(f'm1/pre/{n}'))
        self.journal.finish('m1/pre/2', OperationState.SUCCEEDED)
        self.journal.finish('m1/pre/3', OperationState.SUCCEEDED)
        self.journal.acknowledge('m1/pre/3')
        self.assertEqual(['m1/pre/2'], [o.op_id for o in self.journal.unreported()])

    def test_the_highest_epoch_never_falls(self):
        self.journal.begin(operation('m1/pre/1', epoch=7))
        self.journal.begin(operation('m1/pre/2', epoch=4))
        self.assertEqual(7, self.journal.highest_epoch('m1'))

    def test_pruning_spares_what_is_young_running_or_unreported(self):
        for name in ('old', 'unreported', 'running'):
            self.journal.begin(operation(f'{name}/pre/1', migration_id=name))
        self.journal.finish('old/pre/1', OperationState.SUCCEEDED)
        self.journal.acknowledge('old/pre/1')
        self.journal.finish('unreported/pre/1', OperationState.SUCCEEDED)
        self.now += 500
        self.journal.begin(operation('young/pre/1', migration_id='young'))
        self.journal.finish('young/pre/1', OperationState.SUCCEEDED)
        self.journal.acknowledge('young/pre/1')
        self.assertEqual(1, self.journal.prune(keep=400))
        self.assertIsNone(self.journal.get('old/pre/1'))
        self.assertEqual(-1, self.journal.highest_epoch('old'))
        for name in ('unreported', 'running', 'young'):
            self.assertIsNotNone(self.journal.get(f'{name}/pre/1'), name)
            self.assertEqual(3, self.journal.highest_epoch(name))

    def test_a_file_of_garbage_is_put_aside_and_the_agent_starts_empty(self):
        log = self.useFixture(fixtures.FakeLogger())
        self.journal.close()
        for suffix in ('-wal', '-shm'):
            if os.path.exists(self.path + suffix):
                os.unlink(self.path + suffix)
        with open(self.path, 'wb') as file:
            file.write(b'this is no database' * 1000)
        self.journal = self.open()
        self.assertEqual([], self.journal.unreported())
        self.journal.begin(operation())
        self.assertEqual(1, len([n for n in os.listdir(os.path.dirname(self.path)) if '.corrupt-' in n]))
        self.assertIn('CANNOT BE READ', log.output)

    def test_a_damaged_page_is_found_when_the_journal_is_opened(self):
        for n in range(200):
            self.journal.begin(operation(f'm{n}/pre/1', migration_id=f'm{n}'))
        self.journal.close()
        with open(self.path, 'r+b') as file:
            file.seek(4096 * 3)
            file.write(b'\xff' * 4096 * 4)
        self.journal = self.open()
        self.assertIsNone(self.journal.get('m1/pre/1'))

    def test_an_empty_file_is_an_empty_journal(self):
        self.journal.close()
        with open(self.path, 'wb'):
            self.journal = self.open()
        self.assertEqual([], self.journal.unreported())
        self.assertFalse([n for n in os.listdir(os.path.dirname(self.path)) if '.corrupt-' in n])

    def test_a_full_disk_is_told_in_words_and_forgotten_when_there_is_room(self):
        """Given a disk on which nothing more fits, what cannot be written was not begun or finished; with room all goes on."""
        self.journal.begin(operation())
        pages = self.journal._db.execute('PRAGMA max_page_count').fetchone()[0]
        self.journal._db.execute('PRAGMA max_page_count = 1')
        for _ in range(2):
            error = self.assertRaises(exceptions.JournalError, self.journal.finish, 'm1/pre/1', OperationState.SUCCEEDED, {'x': 'y' * 9999})
            self.assertIn('full', str(error))
        self.assertEqual(OperationState.RUNNING, self.journal.get('m1/pre/1').state)
        self.journal._db.execute(f'PRAGMA max_page_count = {pages}')
        self.journal.finish('m1/pre/1', OperationState.SUCCEEDED, {'x': 'y' * 9999})
        self.assertEqual(OperationState.SUCCEEDED, self.journal.get('m1/pre/1').state)
