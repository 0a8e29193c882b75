"""Whatever dies on the way of a volume: agents and conductors at each step, messages, hosts that stay away, arrays that do not answer."""
import testscenarios

from migrator import exceptions
from migrator.conductor.workflows.volume_migration import VOLUME_MIGRATION
from tests.simulated import wait_for
from tests.unit.conductor.test_volume_migration import SIZE, VolumeCase

#: Each way of the seed: the options of the source's and of the target's array, and the operations that are gone through.
COPY = ('create_target_volume', 'copy_volume', 'verify_volume', 'delete_source_volume')
WAYS = {
    'source': ({'moves': True}, {}, ('migrate_volume', 'delete_source_volume')),
    'at once': ({}, {'take_over': 'sync'}, ('export_volume', 'migrate_volume_target', 'delete_source_volume')),
    'async': ({}, {'take_over': 'async'}, ('migrate_volume_target', 'complete_migration_target', 'delete_source_volume')),
    'copy': ({}, {'take_over': 'no'}, ('export_volume', *COPY))}

#: A host is given up soon: these tests wait for it.
HASTY = {'conductor__host_lost_after': 1.2, 'conductor__poll_interval': 0.5}


def host_of(method):
    """Name the host at which a method is done."""
    return {'source': 'one', 'destination': 'two'}[VOLUME_MIGRATION.line(method).on.value]


def each_step():
    """Give a scenario for each operation of each way."""
    return [(f'{way}, {method}', {'source': source, 'target': target, 'method': method})
            for way, (source, target, methods) in WAYS.items() for method in methods]


class AgentTest(testscenarios.WithScenarios, VolumeCase):
    """The agent that does a step is killed once it has reported nothing of it, and started again."""

    scenarios = each_step()

    def test_it(self):
        host = host_of(self.method)
        self.cloud.broker.lost.add((f'volume-{host}', 'operation_finished'))
        if self.method not in ('migrate_volume', 'export_volume'):      # reports of what comes before it are heard
            self.cloud.broker.lost.clear()
            self.cloud.broker.traps[self.method] = lambda _sender: self.cloud.broker.lost.add((f'volume-{host}', 'operation_finished'))
        migration = self.migrate()
        wait_for(lambda: self.api.show(migration)['step'] == self.method, 'the step')
        wait_for(lambda: self.cloud.broker.lost, 'the reports to be lost')
        agent = self.cloud.volumes.agents[host]
        wait_for(lambda: self.ended_at(agent, migration), 'the operation to end')
        self.cloud.broker.lost.clear()
        self.cloud.volumes.restart(host)
        self.ended(migration)
        self.assert_moved(migration)

    def ended_at(self, agent, migration):
        """Tell whether the step's operation has ended at its agent."""
        for attempt in range(1, 4):
            if agent.operations.get(f'{migration}/{self.method}/{attempt}').state.finished:
                return True
        return False


class ConductorTest(testscenarios.WithScenarios, VolumeCase):
    """The conductor is killed when it has stored a step and not sent it; another one goes on."""

    scenarios = [('checks', {'target': {'take_over': 'no'}, 'source': {}, 'method': 'check_can_migrate_volume_source'}), *each_step()]

    def test_it(self):
        self.cloud.kill_before_sending(self.method)
        migration = self.migrate()
        wait_for(lambda: not self.cloud.conductors, f'the conductor to die before it sends {self.method}')
        self.cloud.add_conductor()
        self.ended(migration)
        self.assert_moved(migration)


class AwayTest(VolumeCase):
    """An agent that stays away."""

    options = HASTY

    def test_the_target_during_the_copy(self):
        """Given a target that is cut off while it copies, then the copy is given up, and what is there is owed."""
        self.arrays.inject('two@b', 'copy', 'slow:3')
        migration = self.migrate(force_host_copy=True)
        self.cloud.wait(migration, 'running')
        self.cloud.broker.cut('volume-two')
        view = self.cloud.wait(migration, 'failed', timeout=30)
        self.assertIn(('two', 'delete_target_volume'), {(debt['host'], debt['action']) for debt in view['debts']})
        self.assertEqual('one', self.row().host)
        self.cloud.broker.mend('volume-two')
        wait_for(lambda: not self.cloud.debts(), 'the debts to be paid')
        self.assert_where_it_was()

    def test_the_source_while_it_may_be_moving_it(self):
        """Given a source that is silent while it may be moving the volume, then an operator is called, and the target left alone."""
        self.arrays.inject('one@a', 'migrate_volume', 'hang')
        migration = self.migrate()
        wait_for(lambda: self.cloud.volumes.agents['one'].operations.running('migrate_volume'), 'the step')
        self.cloud.broker.cut('volume-one')
        view = self.cloud.wait(migration, 'needs_operator', timeout=30)
        self.assertIn('the source array does not answer', view['reason'])
        self.assertEqual([], [call for call in self.arrays.history() if call.array == 'two@b'])
        self.cloud.broker.mend('volume-one')
        self.arrays.release()
        self.ended(migration, 'failed')
        self.assert_where_it_was()


class AttestedTest(VolumeCase):
    """An operator says that a host is off which nobody hears of."""

    options = {'conductor__host_lost_after': 1.2, 'conductor__poll_interval': 0.5, 'conductor__host_down_after': 0.8}

    def silent_source(self):
        """A migration of which nobody knows whether the source has moved the volume; its agent is dead."""
        self.arrays.inject('one@a', 'migrate_volume', 'hang')
        migration = self.migrate()
        wait_for(lambda: self.cloud.volumes.agents['one'].operations.running('migrate_volume'), 'the step')
        self.cloud.volumes.kill('one')
        self.cloud.wait(migration, 'needs_operator', timeout=30)
        return migration

    def test_the_source_is_off_and_the_target_has_nothing(self):
        """Given a source that is off, and a target without the volume, then the volume is where it was; what was exported is owed."""
        migration = self.silent_source()
        wait_for(lambda: self.api.backend_show('one@a')['state'] == 'down', 'the source to be down')
        self.api.recover(migration, assert_dead='one')
        view = self.ended(migration, 'failed')
        self.assertIn('attested', ' '.join(event['reason'] for event in view['events']))
        self.assertEqual('one', self.row().host)
        self.arrays.release()
        self.cloud.volumes.start('one')
        wait_for(lambda: not self.cloud.debts(), 'the debts to be paid')
        self.assert_where_it_was()

    def test_a_host_that_is_heard_of_is_not_off(self):
        migration = self.silent_source()
        error = self.assertRaises(exceptions.HostUp, self.api.recover, migration, assert_dead='two')
        self.assertIn('two is not off', str(error))
        self.assertRaises(exceptions.NotPossible, self.api.recover, migration, assert_dead='alpha')

    def test_a_host_one_of_whose_agents_is_heard_of_is_not_off(self):
        """Given a host whose volume agent is dead, and whose other agent is heard of, then it is not off."""
        migration = self.silent_source()
        wait_for(lambda: self.api.backend_show('one@a')['state'] == 'down', 'the source to be down')
        self.cloud.start_agent('one')
        self.cloud.wait_up('one')
        self.assertRaises(exceptions.HostUp, self.api.recover, migration, assert_dead='one')

    def test_what_a_dead_agent_owes_is_written_off(self):
        """Given a source that never comes back after the volume has left it, then an operator gives up what it owes."""
        self.arrays.inject('one@a', 'delete', 'hang')
        migration = self.migrate(force_host_copy=True)
        wait_for(lambda: self.cloud.volumes.agents['one'].operations.running('delete_source_volume'), 'the removal')
        self.cloud.volumes.kill('one')
        view = self.ended(migration)
        wait_for(lambda: self.api.backend_show('one@a')['state'] == 'down', 'the source to be down')
        self.api.debt_write_off(view['debts'][0]['id'], 'the array was scrapped')
        self.assertEqual([], self.api.show(migration)['debts'])
        self.assertEqual(('two', 'success'), (self.row().host, self.row().migration_status))


class LateTest(VolumeCase):
    """The target in charge, and its data still on its way."""

    target = {'take_over': 'async', 'migration_seconds': 1.5}
    options = HASTY

    def test_the_target_stays_away(self):
        """Given a target that is silent after it was put in charge, then an operator is called, and it goes on when it is back."""
        migration = self.migrate()
        wait_for(lambda: self.row().host == 'two', 'the commit')
        self.cloud.broker.cut('volume-two')
        self.cloud.wait(migration, 'needs_operator', timeout=30)
        self.assertEqual(['one@a', 'two@b'], [array for array, *_rest in self.arrays.luns()])
        self.cloud.broker.mend('volume-two')
        self.ended(migration)
        self.assert_moved(migration)

    def test_the_source_array_is_away_while_the_data_follows(self):
        """Given a source array that is down while data is still there, then nothing is deleted, and it is completed when it is back."""
        migration = self.migrate()
        wait_for(lambda: self.row().host == 'two', 'the commit')
        self.arrays.kill('one@a')
        wait_for(lambda: self.api.backend_show('one@a')['state'] == 'offline', 'the array offline')
        self.assertIn(('one@a', 'fast'), [lun[:2] for lun in self.arrays.luns()])
        self.arrays.start('one@a')
        self.ended(migration)
        wait_for(lambda: not self.cloud.debts(), 'the debts to be paid')
        self.assert_moved(migration)

    def test_what_a_debt_would_remove_is_looked_up(self):
        """Given a removal that is owed for the LUN in which the catalogue has the volume, then it is never issued."""
        self.arrays.inject('one@a', 'delete', 'fail', -1)
        migration = self.migrate()
        self.ended(migration)
        self.cloud.volumes.kill('one')                      # what was issued to it by now is not done any more
        with self.cloud.database.engine.begin() as db:      # as if an operator had brought it back by hand
            db.exec_driver_sql(f"UPDATE volume SET host = 'one', backend = 'a', pool = 'fast', lun = 'volume-{self.volume_id}'")
        self.arrays.release()
        self.cloud.volumes.start('one')
        wait_for(lambda: any(debt.refused for debt in self.cloud.debts()), 'the debt to be refused')
        self.assertIn('must not be removed', self.cloud.debts()[0].reason)
        self.assertIn(('one@a', 'fast', f'volume-{self.volume_id}'), [lun[:3] for lun in self.arrays.luns()])


class SizesTest(VolumeCase):

    def test_it_is_as_large_as_it_was(self):
        migration = self.migrate(force_host_copy=True, verification='full')
        self.ended(migration)
        self.assert_moved(migration)
        driver = self.cloud.volumes.agents['two'].backends.get('b').driver()
        self.assertEqual(SIZE, driver.show('slow', self.row().lun).size)
