"""The engine goes on from what it has just written, unless somebody wrote meanwhile; a repeated request is known for ever."""
import time
from unittest import mock

from migrator import exceptions
from migrator.conductor.db import ledger
from migrator.states import Status
from tests.unit.conductor.test_live_migration import CloudTestCase


class GoOnTest(CloudTestCase):

    def loads(self):
        """Count how often migrations are read from now on."""
        count, original = [], ledger.load

        def load(tx, migration_id):
            count.append(migration_id)
            return original(tx, migration_id)
        patch = mock.patch.object(ledger, 'load', load)
        patch.start()
        self.addCleanup(patch.stop)
        return count

    def test_read_only_for_reports(self):
        """Given a migration that nobody disturbs, then it is read for each of the four reports alone."""
        self.cloud.create('web', 'alpha')
        count = self.loads()
        ended = self.cloud.wait(self.api.live_migrate('web', 'beta'), 'completed')
        self.assertEqual([ended['id']] * 4, count)

    def test_the_timeline_is_in_order_on_a_slow_database(self):
        """Given a database that lets one reader wait, then what the engine reckons afterwards is not ahead of what it reads next."""
        original, count = ledger.load, []

        def load(tx, migration_id):
            count.append(migration_id)
            time.sleep(0.3 if len(count) == 2 else 0)                # the report of live_migration, from which it goes on by itself
            return original(tx, migration_id)
        self.cloud.create('web', 'alpha')
        with mock.patch.object(ledger, 'load', load):
            ended = self.cloud.wait(self.api.live_migrate('web', 'beta'), 'completed')
        moments = [event['at'] for event in ended['events']]
        self.assertEqual(sorted(moments), moments)

    def test_an_abort_while_the_checks_are_asked(self):
        """Given an abort that was stored while the checks were under way, when their answers come, then nothing begins."""
        guest = self.cloud.create('web', 'alpha')
        conductor = next(iter(self.cloud.conductors.values()))
        original, aborted = conductor.engine.agents.check, []

        def check(context, *arguments):
            answers = original(context, *arguments)
            aborted.append(self.api.abort(context.migration_id)['status'])
            return answers
        with mock.patch.object(conductor.engine.agents, 'check', check):
            ended = self.cloud.wait(self.api.live_migrate('web', 'beta'), Status.CANCELLED)
        self.wait_for(lambda: aborted, 'the answer to the abort, which may be later than its effect')
        self.assertEqual([Status.CANCELLED], aborted)
        self.assertNotIn('pre_live_migration', [event['step'] for event in ended['events']])
        self.assertEqual([], self.world.history(guest, 'pre_live_migration'))
        self.cloud.assert_clean(guest, 'alpha')

    def test_a_request_for_a_guest_that_is_gone_is_still_the_first_one(self):
        """Given a request whose guest was deleted afterwards, when it is repeated, then it has the same answer; a new one is refused."""
        self.cloud.create('web', 'alpha')
        first = self.cloud.wait(self.api.instance_stop('web', request_id='req-stop'), 'completed')
        self.cloud.wait(self.api.instance_delete('web'), 'completed')
        self.assertEqual(first['id'], self.api.instance_stop('web', request_id='req-stop')['id'])
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_stop, 'web', request_id='req-other')
