"""Bad requests over RPC: a typed error by name, in words, and nothing changed. And what good ones answer."""
import uuid

import oslo_messaging

from migrator import exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc import contract, errors, facts
from migrator.rpc.transport import Client
from tests import base
from tests.simulated import Cloud

NOBODY = '99999999-9999-4999-8999-999999999999'


class ManagerTestCase(base.TestCase):

    options = {}

    def setUp(self):
        super().setUp()
        self.cloud = self.useFixture(Cloud(**self.options))
        self.api = self.cloud.api

    def refused(self, error, words, call, *args, **kwargs):
        """Assert that a request raises exactly this error, says `words`, and leaves the database as it was."""
        before = self.cloud.dump()
        raised = self.assertRaises(exceptions.MigratorError, call, *args, **kwargs)
        self.assertEqual(error.__name__, raised.kind, raised)
        self.assertIn(words, str(raised))
        self.assertNotIn('\n', str(raised))
        self.assertEqual(before, self.cloud.dump())


class LiveMigrateTest(ManagerTestCase):

    #: A conductor that asks after work that takes long writes that down; on a slow machine it would do so between two looks. The first
    #: time it asks is when its claim of the start ends.
    options = {'conductor__poll_interval': 60.0, 'conductor__claim_seconds': 60.0}

    def setUp(self):
        super().setUp()
        self.guest = self.cloud.create('web', 'alpha')

    def test_unknown_instance(self):
        for instance in (NOBODY, 'nobody'):
            self.refused(exceptions.InstanceNotFound, instance, self.api.live_migrate, instance, 'beta')

    def test_unknown_host(self):
        self.refused(exceptions.HostNotFound, 'gamma', self.api.live_migrate, 'web', 'gamma')

    def test_same_host(self):
        self.refused(exceptions.SameHost, 'web is on alpha already', self.api.live_migrate, 'web', 'alpha')

    def test_destination_down(self):
        self.cloud.kill_agent('beta')
        self.cloud.wait_down('beta')
        self.refused(exceptions.HostDown, 'host beta is down: last heard of at 20', self.api.live_migrate, 'web', 'beta')

    def test_source_down(self):
        self.cloud.kill_agent('alpha')
        self.cloud.wait_down('alpha')
        self.refused(exceptions.HostDown, 'alpha', self.api.live_migrate, 'web', 'beta')

    def test_destination_disabled(self):
        self.api.host_disable('beta', 'new disks')
        self.refused(exceptions.HostDisabled, 'new disks', self.api.live_migrate, 'web', 'beta')

    def test_a_reason_says_something(self):
        """Given a reason of blanks, of nothing or of unprintable characters, the host stays as it is."""
        for reason in (' ', '', '\t', None, 'x' * 256):
            self.refused(exceptions.InvalidRequest, 'reason', self.api.host_disable, 'beta', reason)
        self.assertTrue(self.api.host_show('beta')['enabled'])

    def test_a_guest_may_leave_a_disabled_host(self):
        self.api.host_disable('alpha', 'to be emptied')
        self.cloud.migrate('web', 'beta')
        self.cloud.assert_clean(self.guest, 'beta')

    def test_instance_not_running(self):
        self.cloud.wait(self.api.instance_stop('web', timeout=0), 'completed')
        self.refused(exceptions.InstanceNotRunning, 'web is stopped', self.api.live_migrate, 'web', 'beta')

    def test_already_migrating(self):
        self.cloud.world.inject('beta', 'pre_live_migration', 'hang')
        first = self.api.live_migrate('web', 'beta')
        self.cloud.wait(first, 'preparing')
        self.refused(exceptions.AlreadyMigrating, first['id'], self.api.live_migrate, 'web', 'beta')
        self.refused(exceptions.AlreadyMigrating, first['id'], self.api.instance_stop, 'web')
        self.cloud.world.release()
        self.cloud.wait(first, 'completed')

    def test_being_worked_on_otherwise(self):
        self.cloud.world.inject('alpha', 'stop_instance', 'hang')
        first = self.api.instance_stop('web', timeout=0)
        self.refused(exceptions.ResourceLocked, f'instance_stop {first["id"]}', self.api.live_migrate, 'web', 'beta')
        self.refused(exceptions.ResourceLocked, 'being worked on', self.api.instance_start, 'web')
        self.cloud.world.release()
        self.cloud.wait(first, 'completed')

    def test_wrong_types(self):
        for instance in (None, 7, '', ['web'], {'uuid': self.guest}, 'x' * 129, 'we\nb', True):
            self.refused(exceptions.InvalidRequest, 'instance', self.api.live_migrate, instance, 'beta')
        for host in (None, 7, '', 'be ta', '../beta', 'beta/', 'x' * 65, 'béta', '-beta'):
            self.refused(exceptions.InvalidRequest, 'host', self.api.live_migrate, 'web', host)
        for request_id in (7, ['x'], 'x' * 129, 'a\x00b'):
            self.refused(exceptions.InvalidRequest, 'request_id', self.api.live_migrate, 'web', 'beta', request_id)

    def test_wrong_options(self):
        for options in ([1], 'fast', {'speed': 1}, {'bandwidth_mib': -1}, {'bandwidth_mib': '8'}, {'bandwidth_mib': True},
                        {'bandwidth_mib': 1.5}, {'bandwidth_mib': 2 ** 31}, {'dry_run': 'yes'}, {'dry_run': 1}):
            self.refused(exceptions.InvalidRequest, '', self.api.live_migrate, 'web', 'beta', options=options)

    def test_an_ambiguous_name(self):
        self.cloud.world.add_guest('beta', name='web')
        self.wait_for(lambda: len(self.api.instances()) == 2, 'the second web')
        self.refused(exceptions.InvalidRequest, 'more than one instance has the name web', self.api.live_migrate, 'web', 'beta')

    def test_a_dry_run_changes_nothing_and_tells_the_plan(self):
        before = self.cloud.dump()
        said = self.api.live_migrate('web', 'beta', options={'dry_run': True})
        self.assertEqual((True, [], 'alpha', 'beta', ['vda']),
                         (said['possible'], said['reasons'], said['source_host'], said['destination_host'], said['copy']))
        self.cloud.world.add_file('beta', '/instances', self.guest, 'vda.qcow2')
        said = self.api.live_migrate('web', 'beta', options={'dry_run': True})
        self.assertFalse(said['possible'])
        self.assertIn('vda.qcow2', said['reasons'][0])
        self.assertEqual(before, self.cloud.dump())
        self.refused(exceptions.SameHost, 'alpha', self.api.live_migrate, 'web', 'alpha', options={'dry_run': True})

    def test_a_dry_run_at_an_agent_that_does_not_answer(self):
        self.cloud.broker.cut('beta')
        self.refused(exceptions.Unavailable, 'beta', self.api.live_migrate, 'web', 'beta', options={'dry_run': True})

    def test_a_check_that_fails_names_the_host(self):
        """Given an agent whose hypervisor fails, its words come with its host's name, in a dry run and in the migration's reason."""
        self.cloud.world.inject('beta', 'check_can_live_migrate_destination', 'fail', times=2)
        self.refused(exceptions.DriverError, 'beta: ', self.api.live_migrate, 'web', 'beta', options={'dry_run': True})
        self.assertIn('beta: ', self.cloud.migrate('web', 'beta', 'failed')['error'])


class MigrationTest(ManagerTestCase):

    def test_unknown_migration(self):
        for call in (self.api.show, self.api.abort, self.api.force_complete):
            self.refused(exceptions.MigrationNotFound, NOBODY, call, NOBODY)
            for bad in (None, 5, 'web', '', NOBODY.upper().replace('9', 'F')):
                self.refused(exceptions.InvalidRequest, 'migration', call, bad)

    def test_abort_after_the_end(self):
        self.cloud.create('web', 'alpha')
        done = self.cloud.migrate('web', 'beta')
        self.refused(exceptions.TooLate, 'has ended already: completed', self.api.abort, done['id'])

    def test_abort_of_what_cannot_be_aborted(self):
        self.cloud.create('web', 'alpha', start=False)
        self.cloud.world.inject('alpha', 'start_instance', 'hang')
        started = self.api.instance_start('web')
        self.refused(exceptions.TooLate, 'instance_start cannot be aborted', self.api.abort, started['id'])
        self.cloud.world.release()
        self.cloud.wait(started, 'completed')

    def test_force_complete_of_what_does_not_run(self):
        self.cloud.create('web', 'alpha')
        done = self.cloud.migrate('web', 'beta')
        self.refused(exceptions.NotPossible, 'is completed, not running', self.api.force_complete, done['id'])

    def test_list(self):
        for filters in ([], 'x', {'colour': 'red'}, {'host': 7}, {'needs_attention': 'yes'}, {'status': 'odd'}, {'kind': 'odd'},
                        {'kind': 'migration'}):
            self.refused(exceptions.InvalidRequest, '', self.api.list, filters or [1])
        for limit in (0, -1, 1001, 'all', True, 2.5):
            self.refused(exceptions.InvalidRequest, 'limit', self.api.list, limit=limit)
        self.refused(exceptions.InvalidRequest, 'marker', self.api.list, marker='x')
        self.refused(exceptions.MigrationNotFound, NOBODY, self.api.list, marker=NOBODY)

    def test_list_by_pages_and_filters(self):
        guest = self.cloud.create('web', 'alpha')
        moves = [self.cloud.migrate('web', host)['id'] for host in ('beta', 'alpha', 'beta')]
        self.assertEqual(moves[::-1], [m['id'] for m in self.api.list({'kind': 'live_migration'})])
        self.assertEqual(moves[2:], [m['id'] for m in self.api.list({'instance': guest}, limit=1)])
        self.assertEqual(moves[1:2], [m['id'] for m in self.api.list({'instance': 'web'}, limit=1, marker=moves[2])])
        self.assertEqual(4, len(self.api.list({'host': 'alpha', 'status': 'completed'})))
        self.assertEqual([], self.api.list({'needs_attention': True}))
        self.assertEqual([], self.api.list({'host': 'alpha', 'status': 'failed'}))
        self.assertEqual([], self.api.list({'instance': 'web', 'status': 'failed'}))

    def test_a_list_of_what_does_not_exist_is_no_empty_list(self):
        for filters in ({'host': 'gamma'}, {'host': 'gamma', 'needs_attention': True}):
            self.refused(exceptions.HostNotFound, 'there is no host gamma', self.api.list, filters)
        self.refused(exceptions.HostNotFound, 'there is no host gamma', self.api.debts, {'host': 'gamma'})
        for filters in ({'host': 'gamma'}, {'host': 'gamma', 'state': 'running'}):
            self.refused(exceptions.HostNotFound, 'there is no host gamma', self.api.instances, filters)
        self.assertEqual([], self.api.instances({'host': 'alpha'}))
        for instance in ('nobody', NOBODY):
            self.refused(exceptions.InstanceNotFound, f'there is no instance {instance}', self.api.list, {'instance': instance})

    def test_a_deleted_guest_is_known_by_its_migrations(self):
        guest = self.cloud.create('web', 'alpha', start=False)
        deleted = self.cloud.wait(self.api.instance_delete('web'), 'completed')
        for name in ('web', guest):
            self.assertEqual(deleted['id'], self.api.list({'instance': name})[0]['id'])
            self.assertEqual([], self.api.list({'instance': name, 'kind': 'live_migration'}))


class HostTest(ManagerTestCase):

    def test_unknown_host(self):
        self.refused(exceptions.HostNotFound, 'gamma', self.api.host_show, 'gamma')
        self.refused(exceptions.HostNotFound, 'gamma', self.api.host_disable, 'gamma', 'why not')
        self.refused(exceptions.HostNotFound, 'gamma', self.api.host_enable, 'gamma')

    def test_wrong_types(self):
        for reason in ('', None, 5, 'x' * 256, 'a\tb'):
            self.refused(exceptions.InvalidRequest, 'reason', self.api.host_disable, 'beta', reason)
        for host in ('', None, 'a b', 5):
            self.refused(exceptions.InvalidRequest, 'host', self.api.host_enable, host)

    def test_disable_and_enable(self):
        host = self.api.host_disable('beta', 'new disks')
        self.assertEqual((False, 'new disks'), (host['enabled'], host['disabled_reason']))
        host = self.api.host_enable('beta')
        self.assertEqual((True, ''), (host['enabled'], host['disabled_reason']))

    def test_what_a_host_is(self):
        self.cloud.create('web', 'alpha')
        host = self.wait_for(lambda: next((h for h in self.api.hosts() if h['instances'] == 1), None), 'the guest to be counted')
        self.assertEqual(('alpha', 'up', 'alpha.simulated', 'fake', 32, 0, 0),
                         tuple(host[n] for n in ('name', 'state', 'hypervisor_name', 'hypervisor_type', 'cpus', 'migrations', 'debts')))


class InstanceTest(ManagerTestCase):

    spec = {'uuid': '22222222-2222-4222-8222-222222222222', 'name': 'web', 'memory_mib': 64}

    def test_a_bad_spec(self):
        for change in ({'uuid': 'x'}, {'uuid': None}, {'name': ''}, {'name': '../x'}, {'memory_mib': 1}, {'memory_mib': '64'},
                       {'memory_mib': 64.5}, {'vcpus': 0}, {'disks': 'vda'}, {'disks': [{}]}, {'disks': [{'target': 'vda', 'size': -1}]},
                       {'disks': [{'target': '/dev/vda', 'size': 1}]}, {'disks': [None]},
                       {'colour': 'red'}, {'vcpu': 2}, {'disks': [{'target': 'vda', 'size': 1, 'bus': 'scsi'}]}):
            self.refused(exceptions.InvalidRequest, 'spec', self.api.instance_create, 'alpha', {**self.spec, **change})
        for spec in (None, [], 'web', 5):
            self.refused(exceptions.InvalidRequest, 'spec', self.api.instance_create, 'alpha', spec)
        self.refused(exceptions.InvalidRequest, 'start', self.api.instance_create, 'alpha', self.spec, start='yes')

    def test_on_an_unknown_host(self):
        self.refused(exceptions.HostNotFound, 'gamma', self.api.instance_create, 'gamma', self.spec)

    def test_on_a_disabled_host(self):
        self.api.host_disable('alpha', 'old')
        self.refused(exceptions.HostDisabled, 'old', self.api.instance_create, 'alpha', self.spec)

    def test_one_that_exists(self):
        guest = self.cloud.create('web', 'alpha')
        self.refused(exceptions.InstanceExists, guest, self.api.instance_create, 'beta', {**self.spec, 'uuid': guest})

    def test_unknown_instance(self):
        for call in (self.api.instance_show, self.api.instance_start, self.api.instance_stop, self.api.instance_delete):
            self.refused(exceptions.InstanceNotFound, 'nobody', call, 'nobody')

    def test_delete_of_a_running_one(self):
        self.cloud.create('web', 'alpha')
        self.refused(exceptions.InstanceRunning, 'stop it first', self.api.instance_delete, 'web')

    def test_the_state_of_one_whose_host_is_down_is_what_the_host_told_last(self):
        guest = self.cloud.create('web', 'alpha')
        shown = self.api.instance_show(guest)
        self.assertEqual(('running', 'up'), (shown['state'], shown['host_state']))
        self.cloud.world.host_crash('alpha')
        self.cloud.kill_agent('alpha')
        self.cloud.wait_down('alpha')
        for view in (self.api.instance_show(guest), *self.api.instances({'host': 'alpha'})):
            self.assertEqual(('running', 'down'), (view['state'], view['host_state']))
            self.assertEqual(self.api.host_show('alpha')['last_seen'], view['host_last_seen'])
        self.wait_for(lambda: self.api.instance_show(guest)['host_silent_seconds'] >= 2, 'the silence to be counted')

    def test_a_bad_time_for_stop(self):
        self.cloud.create('web', 'alpha')
        for timeout in (-1, 3601, 'soon', 1.5, True, None):
            self.refused(exceptions.InvalidRequest, 'timeout', self.api.instance_stop, 'web', timeout=timeout)

    def test_a_state_that_there_is_not(self):
        for state in ('off', 'RUNNING', 'odd', 5):
            self.refused(exceptions.InvalidRequest, 'state', self.api.instances, {'state': state})

    def test_a_slip_in_a_spec_is_named(self):
        self.refused(exceptions.InvalidRequest, "spec has no 'memory'; it may have uuid, name, memory_mib", self.api.instance_create,
                     'alpha', {**self.spec, 'memory': 64})
        self.refused(exceptions.InvalidRequest, "spec.disks[1] has no 'bus'", self.api.instance_create, 'alpha',
                     {**self.spec, 'disks': [{'target': 'vda', 'size': 1}, {'target': 'vdb', 'size': 1, 'bus': 'scsi'}]})

    def test_start_of_one_that_its_host_does_not_know(self):
        guest = self.cloud.world.add_guest('alpha', name='web')
        self.wait_for(self.api.instances, 'the guest to be found')
        with self.cloud.world.store.write() as db:
            db.execute('DELETE FROM guest WHERE uuid = ?', (guest,))
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'unknown', 'the guest to be missed')
        self.refused(exceptions.NotPossible, 'does not know instance web', self.api.instance_start, 'web')
        self.refused(exceptions.InstanceNotRunning, 'web is unknown', self.api.live_migrate, 'web', 'beta')


class WireTest(ManagerTestCase):

    def call(self, name, version='1.0', table=None, namespace=None, **arguments):
        """Call as an outdated or hostile client does, past the checks of our own."""
        method = contract.Method(name, contract.Kind.CALL, 5, tuple(arguments), '')
        client = Client(self.cloud.transport, contract.TOPIC_CONDUCTOR, {name: method}, version, namespace=namespace)
        return client.call(rpc_context.MigratorContext(overwrite=False), name, version, **arguments)

    def test_a_method_that_does_not_exist(self):
        for name in ('migrate_everything', '__init__', '_accepted', 'database', 'target', 'heartbeat'):
            self.refused(errors.NoSuchMethod, name, self.call, name)

    def test_a_version_that_does_not_exist(self):
        for version in ('1.99', '2.0'):
            self.refused(errors.UnsupportedVersion, version, self.call, 'hosts', version)

    def test_an_argument_that_does_not_exist(self):
        self.refused(exceptions.InvalidRequest, 'has no argument colour', self.call, 'hosts', colour='red')

    def test_an_argument_that_is_missing(self):
        self.refused(exceptions.InvalidRequest, 'live_migrate needs instance, destination_host, request_id, options', self.call,
                     'live_migrate')

    def test_an_oversized_payload_is_not_sent(self):
        spec = {'uuid': str(uuid.uuid4()), 'name': 'web', 'cmdline': 'x' * (1 << 20)}
        self.refused(exceptions.PayloadTooLarge, 'the limit is 1048576', self.api.instance_create, 'alpha', spec)

    def test_an_oversized_payload_is_not_taken(self):
        where = oslo_messaging.Target(exchange=contract.CONTROL_EXCHANGE, topic=contract.TOPIC_CONDUCTOR, version='1.0')
        raw = oslo_messaging.get_rpc_client(self.cloud.transport.messaging, where, serializer=rpc_context.ContextSerializer())
        before = self.cloud.dump()
        raised = self.assertRaises(exceptions.PayloadTooLarge, raw.call, rpc_context.MigratorContext(overwrite=False), 'instance_create',
                                   host='alpha', spec={'cmdline': 'x' * (1 << 20)}, request_id=None, start=True)
        self.assertIn('the limit is 1048576', str(raised))
        self.assertEqual(before, self.cloud.dump())

    def test_what_agents_say_is_checked_too(self):
        for report in (None, [], {}, {'op_id': 'x', 'migration_id': NOBODY, 'host': 'alpha'},
                       {'op_id': f'{NOBODY}/live_migration/1', 'migration_id': NOBODY, 'host': 'alpha', 'state': 'odd'}):
            self.refused(exceptions.InvalidRequest, 'report', self.call, 'operation_finished', namespace='agent', report=report)
        for heartbeat in (None, {}, {'host': ''}, {'host': 'alpha', 'sequence': -1}, {'host': 'alpha', 'guests': [{}]},
                          *self.odd_heartbeats()):
            self.refused(exceptions.InvalidRequest, 'heartbeat', self.call, 'heartbeat', namespace='agent', heartbeat=heartbeat)

    def odd_heartbeats(self):
        """Heartbeats of alpha, each with one thing that cannot be."""
        wrong = ({'monotonic': 1.7e308}, {'monotonic': -1.0}, {'monotonic': 2 ** 62}, {'looked': 1.7e308}, {'process_id': 'x' * 37},
                 {'process_id': 'a b'}, {'host_boot_id': 'x' * 100}, {'rpc_version': '1' * 65}, {'gone': ['x']}, {'gone': ['x' * 500]},
                 {'progress': {'x' * 37: {}}}, {'progress': {NOBODY: []}}, {'progress': {NOBODY: {'iteration': 2 ** 63}}},
                 {'progress': {str(uuid.uuid4()): {} for _ in range(facts.MAX_PROGRESS + 1)}},
                 {'guests': [{'uuid': NOBODY, 'memory_mib': 2 ** 31}]})
        return [{'host': 'alpha', 'process_id': 'p', 'sequence': 2 ** 40, 'full': True, **change} for change in wrong]

    def test_a_report_of_an_unknown_migration(self):
        report = {'op_id': f'{NOBODY}/live_migration/1', 'migration_id': NOBODY, 'host': 'alpha', 'state': 'succeeded'}
        self.refused(exceptions.MigrationNotFound, NOBODY, self.call, 'operation_finished', namespace='agent', report=report)


class NobodyTest(ManagerTestCase):

    def test_no_conductor(self):
        self.cloud.stop_conductor()
        raised = self.assertRaises(exceptions.Unavailable, self.api.hosts)
        self.assertIn('no conductor can be asked', str(raised))
