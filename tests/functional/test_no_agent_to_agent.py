"""No message goes from agent to agent: what RabbitMQ itself saw of a success, a failure that was undone, and an abort.

Real daemons as processes, a broker and a database of the real kind, simulated hypervisors. Who published a message and who hears the
queues that it went to is the broker's word. What a success costs is counted on the way, SQL by the log of the server.
"""
from migrator.rpc import contract
from migrator.states import Status
from tests import base, services, trace
from tests.bench import cost, sql_log
from tests.bench.watch import Watch, orchestrate
from tests.cluster import Cluster

SOURCE, DESTINATION = 'one', 'two'
#: What one successful live migration may cost, heartbeats apart.
MOST_MESSAGES, MOST_STATEMENTS, MOST_COMMITS = 26, 25, 9

#: Shorter than the migration: what agents tell by heartbeats need not be asked for, however long it takes.
SECONDS, UNHURRIED = 6, {'claim_seconds': 3, 'poll_interval': 4}


class TestNoAgentToAgent(base.TestCase):
    """Given two agents and a conductor on RabbitMQ, when guests are migrated, then agents exchange messages with the conductor alone."""

    timeout = 150

    def setUp(self):
        super().setUp()
        broker = services.start_rabbitmq()       # of our own, for the firehose needs rabbitmqctl
        self.addCleanup(broker.stop)
        url = broker.url()
        self.database = self.useFixture(services.Database('mysql')).url
        self.cluster = self.useFixture(Cluster(url, self.database, hosts=(SOURCE, DESTINATION),
                                               options={'fake': {'migration_seconds': SECONDS}, 'conductor': UNHURRIED}))
        self.trace = trace.Trace(url, trace.Control(broker.pid))
        self.trace.__enter__()
        self.addCleanup(self.trace.__exit__, None, None, None)

    def test_agents_talk_to_the_conductor_only(self):
        """Given a trace, when a migration succeeds, one fails and one is aborted, then it shows no message between agents."""
        guest = self.cluster.create(SOURCE)
        self.cluster.wait_for(lambda: self.cluster.api.instance_show(guest)['disks'], 'the disks in the catalogue')
        done = self.success(guest)
        failed = self.failure(guest)
        aborted = self.abort(guest)
        self.assertEqual([Status.COMPLETED, Status.FAILED, Status.CANCELLED], [m['status'] for m in (done, failed, aborted)])
        messages = self.trace.wait_answered()
        self.check_ways(messages)
        self.check_cost(messages, done)
        self.check_methods(messages, failed, {'rollback_live_migration_at_destination', 'rollback_live_migration_at_source'})
        self.check_methods(messages, aborted, {'abort_live_migration', 'rollback_live_migration_at_source'})

    def success(self, guest):
        """Migrate while the database's server keeps a log, and check what that shows; returns the migration at its end."""
        watch = Watch(self.database)
        self.addCleanup(watch.close)
        with sql_log.log_of(self.database) as log:
            moved = orchestrate(self.cluster.api, watch, guest, DESTINATION)
            self.trace.wait_answered()
            found = cost.database(sql_log.group(log.statements([watch.number])), moved.ids)
        print('\n'.join(found['transactions']))
        self.assertLessEqual(found['statements'], MOST_STATEMENTS, found['transactions'])
        self.assertLessEqual(found['commits'], MOST_COMMITS, found['transactions'])
        return self.cluster.api.show(moved.id)

    def failure(self, guest):
        """Let the hypervisor's call fail; returns the migration at its end."""
        self.cluster.world.inject(DESTINATION, 'live_migration', 'fail')
        return self.cluster.ended(self.cluster.api.live_migrate(guest, SOURCE))

    def abort(self, guest):
        """Abort in mid-copy; returns the migration at its end."""
        migration = self.cluster.api.live_migrate(guest, SOURCE)
        self.cluster.wait_for(lambda: self.cluster.api.show(migration['id'])['status'] == Status.RUNNING, 'a job of the hypervisor')
        self.cluster.api.abort(migration['id'])
        return self.cluster.ended(migration)

    def check_ways(self, messages):
        """Check sender and receivers of each message."""
        processes = {self.cluster.daemons[name].pid: name for name in self.cluster.daemons}
        names = {connection: processes.get(pid, 'outside') for connection, pid in self.trace.publishers().items()}
        hearers = {queue: {names[connection] for connection in connections} for queue, connections in self.trace.hearers().items()}
        agents = {SOURCE, DESTINATION}
        seen = set()
        for message in messages:
            sender = names[message.connection]
            receivers = {name for queue in message.queues for name in hearers.get(queue, ())}
            seen.update((sender, receiver) for receiver in receivers)
            self.assertFalse(sender in agents and receivers & agents, f'{sender} told {receivers}: {message}')
            if sender in agents:
                self.assertEqual({'conductor-0'}, receivers, message)
                to_topic = (message.exchange, message.routing_key) == (contract.CONTROL_EXCHANGE, contract.TOPIC_CONDUCTOR)
                to_asker = (message.kind, message.exchange) == ('reply', '') and hearers[message.routing_key] == {'conductor-0'}
                self.assertTrue(to_topic or to_asker, message)
            if receivers & agents:
                self.assertEqual('conductor-0', sender, message)
        # The check is worth something only if all of them were seen talking.
        self.assertEqual({(a, 'conductor-0') for a in agents} | {('conductor-0', a) for a in agents},
                         {way for way in seen if 'outside' not in way})

    def check_cost(self, messages, migration):
        """Check what a success costs, and print it."""
        cost = trace.belonging(messages, migration['id'], migration['request_id'])
        lines = trace.table(cost)
        print('\n'.join(['one live migration, heartbeats apart:', *lines]))
        self.assertLessEqual(len(cost), MOST_MESSAGES, '\n'.join(lines))
        self.assertEqual(set(), {m.method for m in cost if m.kind == 'request'} - self.expected_methods(), lines)
        self.assertEqual([], trace.unanswered(cost))

    @staticmethod
    def expected_methods():
        """Name what a success consists of; what is polled by users has request ids of its own."""
        return {'live_migrate', 'check_can_live_migrate_destination', 'check_can_live_migrate_source', 'pre_live_migration',
                'live_migration', 'locate_instance', 'post_live_migration_at_destination', 'post_live_migration_at_source',
                'operation_finished'}

    def check_methods(self, messages, migration, wanted):
        """Check that the migration went the way that it was meant to go."""
        methods = {m.method for m in trace.belonging(messages, migration['id'], migration['request_id'])}
        self.assertEqual(wanted, wanted & methods)
