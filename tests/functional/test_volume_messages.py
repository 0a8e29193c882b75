"""Volumes that move between real arrays while requests, answers and reports are lost or come twice, over a real broker.

Every message that begins an operation, and every report of its end, is lost first, loses its answer then, and comes twice always
(tests/faults/messages.py). At the end all of them come once more, the latest first, as if the broker had kept them.
"""
import collections
import json
import re
import threading

from migrator import exceptions
from migrator.rpc import contract
from migrator.rpc.compute import ComputeAPI
from migrator.rpc.conductor import AgentToConductorAPI
from migrator.rpc.context import MigratorContext
from migrator.rpc.volume import VolumeAPI
from migrator.states import Status
from tests.functional.real_arrays import MIB, Client, RealArraysCase
from tests.functional.test_copying import copiers

BEGUN = re.compile(r'([0-9a-f-]{36}/\w+)/\d+ begins')


class MessagesTest(RealArraysCase):

    runner = 'tests.faults.messages'

    def test_a_take_over_under_a_client(self):
        """Given a client that writes through the target while the data follows, then one array works for it, on one LUN, and every write is
        there at the end."""
        self.guest = self.cluster.create('one')
        data = self.volume(32 * MIB, 32 * MIB)
        moving = self.ask_twice('west@b#fast', bandwidth=MIB)
        self.cluster.wait_for(lambda: self.api.volume_show('data')['migration_status'] == 'migrating_attachable', 'the take-over')
        client = Client(self.attach(), data)
        self.cluster.wait_for(lambda: client.blocks, 'the first write')
        self.assertEqual('migrating_attachable', self.api.volume_show('data')['migration_status'], 'it was too fast to prove anything')
        self.assertEqual({'a': 0, 'b': 1, 'c': 0}, {name: len(array.ask('query-block-jobs')) for name, array in self.arrays.items()})
        self.assertEqual({'a': 1, 'b': 1, 'c': 0}, self.luns())
        self.assertEqual({'a': 1, 'b': 1, 'c': 0}, {name: len(found) for name, found in self.exports().items()})
        self.api.set_bandwidth(moving['id'], 0)
        ended = self.cluster.ended(moving, timeout=120)
        data = client.finish()
        self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_detach('data', self.guest))['status'])
        self.assert_once(ended, 'complete_migration_target')
        self.assert_late_messages_change_nothing(data, 'west@b')

    def test_a_host_copy(self):
        """Given a copy, then it is made by one program, to one LUN, and the source is removed once."""
        data = self.volume(32 * MIB, 24 * MIB)
        moving = self.ask_twice('west@b#fast', bandwidth=8 * MIB, force_host_copy=True)
        self.cluster.wait_for(lambda: (self.api.show(moving['id'])['progress'] or {}).get('active'), 'some of the copy')
        self.assertEqual((1, {'a': 1, 'b': 1, 'c': 0}), (len(copiers(self.cluster.folder)), self.luns()))
        self.api.set_bandwidth(moving['id'], 0)
        ended = self.cluster.ended(moving, timeout=120)
        self.assert_once(ended, 'copy_volume')
        self.assert_late_messages_change_nothing(data, 'west@b')

    def ask_twice(self, destination, **options):
        """Make one request twice at the same time; returns the migration."""
        answers = []

        def ask():
            answers.append(self.api.volume_migrate('data', destination, request_id='once', options=options))
        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(60)
        self.assertEqual(answers[0]['id'], answers[1]['id'])
        self.repeated, self.moved = (destination, options), answers[0]['id']
        return answers[0]

    def luns(self):
        """How many LUNs each array has."""
        return {name: sum(file.endswith('.raw') for pool in array.pools for file in array.files(pool))
                for name, array in self.arrays.items()}

    def messages(self):
        """Each sending of a message, in order."""
        return [json.loads(line) for line in self.cluster.messages_file.read_text().splitlines()]

    def assert_once(self, migration, named):
        """It is over, and each of its operations was begun once, though every request and every report met its fate."""
        self.assertEqual(Status.COMPLETED, migration['status'], migration)
        steps = self.steps(migration)
        self.assertIn(named, steps)
        logged = ''.join(daemon.log.read_text(errors='replace') for daemon in self.cluster.daemons.values())
        begun = collections.Counter(BEGUN.findall(logged))
        self.assertEqual({f'{migration["id"]}/{step}': 1 for step in steps},
                         {operation: times for operation, times in begun.items() if operation.startswith(migration['id'])})
        # A report is repeated until it is acknowledged, also when the conductor has asked for the outcome itself meanwhile.
        wanted = {(step, reports) for step in steps for reports in (False, True)}
        self.cluster.wait_for(lambda: wanted <= self.lost_and_doubled(migration['id']), 'the fate of each request and each report')

    def lost_and_doubled(self, migration):
        """The operations whose request (False) or report (True) was lost, and has come twice without an answer to the sender."""
        fates = collections.defaultdict(set)
        for message in self.messages():
            told = message['arguments'].get('envelope') or message['arguments']['report']
            owner, step, _ = told['op_id'].split('/')
            if owner == migration:
                fates[step, message['name'] == 'operation_finished'].add((message['fate'], len(message['said'])))
        return {key for key, found in fates.items() if {('lost', 0), ('unanswered', 2)} <= found}

    def assert_late_messages_change_nothing(self, data, at):
        """Given all messages once more, then each agent knows what became of it, or refuses what is outdated; nothing moves anywhere."""
        self.assert_is(data, at)
        before = self.as_it_is()
        destination, options = self.repeated
        self.assertEqual(self.moved, self.api.volume_migrate('data', destination, request_id='once', options=options)['id'])
        said = collections.Counter(self.send_again(message) for message in reversed(self.messages()))
        self.assertLessEqual(set(said), {'succeeded', 'StaleEpoch', 'heard'}, said)
        self.assertGreater(min(said['succeeded'], said['heard']), 5, said)
        self.assertEqual(before, self.as_it_is())
        self.assert_is(data, at)

    def send_again(self, message):
        """Send a message as it was; returns what is said to it: the operation's state, the error's class, or that it was heard."""
        transport = self.cluster.api._client.transport
        if message['name'] == 'operation_finished':
            api = AgentToConductorAPI(self.conf.conf, transport)
        else:
            api = (VolumeAPI if message['name'] in contract.VOLUME else ComputeAPI)(self.conf.conf, transport)
        try:
            answer = api._client.call(MigratorContext(overwrite=False), message['name'], server=message['server'], **message['arguments'])
        except exceptions.MigratorError as error:
            return type(error).__name__
        return 'heard' if message['name'] == 'operation_finished' else answer['state']
