"""Volumes moved between real arrays by real daemons, with a client that reads and writes them; each way that real drivers offer."""
import os
import pathlib
import signal
import threading
import time

from migrator import exceptions
from migrator.rpc import volume_facts as facts
from migrator.states import TERMINAL, Status
from tests.functional.keys import make_keys
from tests.functional.nbd_clients import NbdClients, storage_daemons
from tests.functional.real_arrays import MIB, Client, RealArraysCase
from tests.lab.array import Array
from tests.service_keeper import free_port

#: The steps of asking both drivers, and of a copy.
ASKED = ('migrate_volume', 'export_volume', 'migrate_volume_target')
COPIED = ('create_target_volume', 'copy_volume', 'verify_volume')
DECLINES = 'the source array does not move it by itself'


class RealArraysTest(RealArraysCase):
    """Each way that real drivers offer."""

    def test_written_to_while_its_data_is_still_on_its_way(self):
        """Given a volume that the target has taken over, when a guest gets it before its data is there, and writes throughout, then
        nothing that it wrote, and nothing that was there, is missing at the end. By two agents, and by one."""
        self.guest = self.cluster.create('one')
        data = self.volume(128 * MIB, 128 * MIB)
        for destination in ('west@b', 'east@c', 'east@a'):
            moving = self.api.volume_migrate('data', destination, options={'bandwidth': 2 * MIB})
            self.cluster.wait_for(lambda: self.api.volume_show('data')['migration_status'] == 'migrating_attachable', 'the take-over')
            client = Client(self.attach(), data)
            self.cluster.wait_for(lambda client=client: client.blocks, 'the first write')
            for refused in (lambda: self.api.volume_extend('data', 1 << 30), lambda: self.api.volume_delete('data'),
                            lambda: self.api.volume_migrate('data', 'west@b')):
                self.assertRaises(exceptions.ResourceLocked, refused)
            self.assertEqual('migrating_attachable', self.api.volume_show('data')['migration_status'], 'it was too fast to prove anything')
            self.api.set_bandwidth(moving['id'], 0)
            ended = self.cluster.ended(moving, timeout=120)
            self.assertEqual(Status.COMPLETED, ended['status'], ended)
            self.assertIn('complete_migration_target', self.steps(ended))
            written = client.blocks
            self.cluster.wait_for(lambda client=client, n=written: client.blocks > n, 'a write after the switch')
            attached = {**dict.fromkeys(self.arrays, []), destination[-1]: [self.file().name]}
            self.assertEqual(attached, self.exports(), 'the attachment, from the local file, and nothing else')
            data = client.finish()
            self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_detach('data', self.guest))['status'])
            self.assert_is(data, destination)

    def test_a_host_copy(self):
        """Given a sparse volume, when a copy is forced, then no driver is asked, and what was not written stays unallocated."""
        data = self.volume(256 * MIB, 32 * MIB)
        ended = self.migrate('west@b', force_host_copy=True, verification='full')
        self.assertEqual(['export_volume', *COPIED, 'delete_source_volume'], self.steps(ended))
        self.assertLess(self.file().stat().st_blocks * 512, 48 * MIB)
        self.assert_is(data, 'west@b')

    def test_between_two_pools_of_one_array(self):
        """Given a volume that is to go to another pool of its array, then the array moves it by itself, and no other driver is asked;
        nobody gets it meanwhile. Its agent and the array may die over that: nothing is lost, and it goes on."""
        guest, data = self.cluster.create('one'), self.volume(64 * MIB, 32 * MIB)
        moving = self.api.volume_migrate('data', 'east@a#slow', options={'bandwidth': 4 * MIB})
        self.cluster.wait_for(lambda: self.api.show(moving['id'])['progress'], 'data on its way')
        self.assertRaises(exceptions.ResourceLocked, self.api.volume_attach, 'data', guest)
        self.cluster.daemons['east'].kill()
        self.arrays['a'].restart()
        self.cluster.restart(self.cluster.daemons['east'])
        self.cluster.wait_for(lambda: (self.api.show(moving['id'])['progress'] or {}).get('active'), 'data on its way again')
        self.api.set_bandwidth(moving['id'], 0)
        ended = self.cluster.ended(moving, timeout=120)
        self.assertEqual((Status.COMPLETED, ['migrate_volume', 'delete_source_volume']), (ended['status'], self.steps(ended)), ended)
        self.assertEqual(('source driver', 'the source array has moved it by itself'), self.way())
        self.assertEqual('east@a#slow', self.api.volume_show('data')['pool'])
        self.assert_is(data, 'east@a')
        self.migrate('east@a#fast', force_host_copy=True)
        self.assertEqual('host copy', self.way()[0])
        self.assert_is(data, 'east@a')

    def test_an_array_that_dies_while_it_takes_over(self):
        """Given a take-over whose data is on its way, when the target's array dies and comes back, then it fetches the rest."""
        data = self.volume(512 * MIB, 512 * MIB)
        moving = self.api.volume_migrate('data', 'west@b')
        self.cluster.wait_for(lambda: self.api.volume_show('data')['migration_status'] == 'migrating_attachable', 'the take-over')
        self.arrays['b'].restart()
        ended = self.cluster.ended(moving, timeout=120)
        self.assertEqual(Status.COMPLETED, ended['status'], ended)
        self.assert_is(data, 'west@b')

    def test_two_requests_for_one_volume(self):
        """Given two requests at the same time, then one wins, and the other is told which."""
        data = self.volume(64 * MIB, 64 * MIB)
        answers = []

        def ask(destination):
            try:
                answers.append(self.api.volume_migrate('data', destination)['id'])
            except exceptions.ResourceLocked as error:
                answers.append(str(error))
        asking = [threading.Thread(target=ask, args=(destination,)) for destination in ('west@b', 'east@c')]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(60)
        won = next(answer for answer in answers if len(answer) == 36)
        self.assertIn(won, next(answer for answer in answers if answer != won))
        ended = self.cluster.ended({'id': won}, timeout=120)
        self.assert_is(data, f'{ended["destination_host"]}@{"b" if ended["destination_host"] == "west" else "c"}')


class TroubleTest(RealArraysCase):
    """What users and arrays do to a migration."""

    def test_a_limit_that_is_lifted_while_the_data_moves(self):
        """Given a copy, then a take-over, held to a rate at which either takes two minutes, when a user lifts the limit, then it ends long
        before; it has kept to the limit until then, and how far it is never goes back."""
        data = self.volume(120 * MIB, 120 * MIB)
        for where, step, options in (('west@b', 'copy_volume', {'force_host_copy': True}), ('east@c', 'complete_migration_target', {})):
            moving, began = self.api.volume_migrate('data', where, options={'bandwidth': MIB, **options}), time.monotonic()
            seen = [0]

            def look(moving=moving, step=step, seen=seen):
                shown = self.api.show(moving['id'])
                if shown['step'] == step and shown['progress']:
                    seen.append(shown['progress']['done'])
                return shown
            self.cluster.wait_for(lambda look=look, seen=seen: look() and seen[-1] >= 4 * MIB, 'some of the data', 60)
            self.assertLess(seen[-1], (time.monotonic() - began + 8) * MIB)
            self.api.set_bandwidth(moving['id'], 0)
            lifted = time.monotonic()
            ended = self.cluster.wait_for(lambda look=look: (s := look())['status'] in TERMINAL and s, 'the end', 120)
            self.assertLess(time.monotonic() - lifted, 60)
            self.assertEqual((Status.COMPLETED, sorted(seen)), (ended['status'], seen), ended)
            self.assert_is(data, where)

    def test_a_source_that_cannot_be_removed(self):
        """Given somebody who reads from the source's export, when the volume has moved, then it is at the target and may be used; what it
        has left is listed as owed, and removed once nobody uses it."""
        data = self.volume(32 * MIB, 32 * MIB)
        source = self.file()
        moving = self.api.volume_migrate('data', 'west@b', options={'bandwidth': MIB})
        self.cluster.wait_for(lambda: self.api.volume_show('data')['migration_status'] == 'migrating_attachable', 'the take-over')
        array = self.arrays['a']
        export = facts.Connection(f'nbd://{array.address}:{array.port}/migration-{moving["id"]}', True)
        with NbdClients().holding(export):
            self.api.set_bandwidth(moving['id'], 0)
            ended = self.cluster.ended(moving, timeout=120)
            self.assertEqual((Status.COMPLETED, ['delete_source_volume']), (ended['status'], [debt['action'] for debt in ended['debts']]))
            self.assertIn('is in use', ended['debts'][0]['reason'])
            self.assertEqual([ended['volume_id']], [debt['volume_id'] for debt in self.api.audit()['debts']])
            shown = self.api.volume_show('data')
            self.assertEqual((True, 'available', ''), (source.exists(), shown['status'], shown['locked_by']))
            self.guest = self.cluster.create('one')
            client = Client(self.attach(), data)
            self.cluster.wait_for(lambda: client.blocks > 10, 'writes')
            data = client.finish()
        self.cluster.wait_for(lambda: not source.exists(), 'the removal', 60)
        self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_detach('data', self.guest))['status'])
        self.assert_is(data, 'west@b')

    def test_an_array_that_is_off(self):
        """Given an array without power, then nothing goes to it or comes from it, and no guest gets what it has: refused at once, and
        nothing is changed; when it is back, all that can be done again."""
        guest, data = self.cluster.create('one'), self.volume(16 * MIB, 16 * MIB)
        for where in ('west@b', 'east@a'):
            self.arrays[where[-1]].kill()
            self.await_state(where, 'offline')
            for options in ({}, {'force_host_copy': True}):
                said = self.assertRaises(exceptions.BackendOffline, self.api.volume_migrate, 'data', 'west@b', options=options)
                self.assertIn(f'{where} is offline', str(said))
            if where == 'east@a':
                self.assertRaises(exceptions.BackendOffline, self.api.volume_attach, 'data', guest)
            self.arrays[where[-1]].start()
            self.await_state(where, 'up')
        self.assertEqual([], self.api.list({'kind': 'volume_migration'}))
        self.assert_is(data, 'east@a')
        self.migrate('west@b')
        self.assert_is(data, 'west@b')

    def await_state(self, where, state):
        """Wait until the conductors know a backend as up, or offline."""
        self.cluster.wait_for(lambda: self.api.backend_show(where)['state'] == state, f'{where} {state}')


class TypesTest(RealArraysCase):
    """Given arrays of two types: `a` and `c` serve silver, `b` gold."""

    def backend(self, name, **options):
        """Describe an array as a backend that serves a type."""
        return super().backend(name, types='gold' if name == 'b' else 'silver', **options)

    def test_a_volume_gets_another_type(self):
        """Given a volume of a type, when it is to have another, then it is copied to an array that serves that, by no driver's way, and its
        type is the new one; so it moves among arrays of that, and back only with its former type."""
        data = self.volume(64 * MIB, 32 * MIB, type='silver')
        volume, source = self.api.volume_show('data')['id'], self.file()
        before = self.as_it_is()
        for error, destination, options in ((exceptions.InvalidRequest, 'west@b#fast', {'new_type': 'copper'}),
                                            (exceptions.MigrationRefused, 'east@c#fast', {'new_type': 'gold'}),
                                            (exceptions.MigrationRefused, 'west@b#fast', {})):
            self.assertRaises(error, self.api.volume_migrate, 'data', destination, options=options)
            self.assertEqual(before, self.as_it_is())
        ended = self.migrate('west@b#fast', new_type='gold')
        self.assert_typed('gold', ended)
        self.assertEqual((volume, False), (self.api.volume_show('data')['id'], source.exists()))
        self.assert_is(data, 'west@b')
        self.assertIn('migrate_volume', self.steps(self.migrate('west@b#slow')))
        self.assertEqual('gold', self.api.volume_show('data')['type'])
        said = self.assertRaises(exceptions.MigrationRefused, self.api.volume_migrate, 'data', 'east@c#fast')
        self.assertIn('east@c does not serve volumes of type gold; its types: silver', str(said))
        self.assert_typed('silver', self.migrate('east@c#fast', new_type='silver'))
        self.assert_is(data, 'east@c')

    def assert_typed(self, wanted, migration):
        """It has got this type by a copy."""
        self.assertEqual(['export_volume', *COPIED, 'delete_source_volume'], self.steps(migration))
        self.assertEqual(('host copy', 'another type was asked for, and no driver changes the type'), self.way())
        self.assertEqual(wanted, self.api.volume_show('data')['type'])


class OtherWaysTest(RealArraysCase):
    """The agent `west` has two more arrays: `d` takes volumes over at once, and `plain`, of the driver `file`, not at all."""

    def prepare(self):
        self.arrays['d'] = self.useFixture(Array('d'))
        self.plain = self.temp_dir / 'plain'
        self.plain.mkdir()
        self.addCleanup(self.end_servers)

    def others(self):
        return {'d': self.backend('d', take_over='sync'),
                'plain': {'driver': 'file', 'pools': f'fast:{self.plain}', 'run_directory': self.temp_dir / 'run',
                          'first_port': free_port('127.0.0.1'), 'last_port': 65535}}

    def servers(self):
        """The storage daemons that the driver `file` has started and which still run."""
        return storage_daemons(self.temp_dir / 'run')

    def end_servers(self):
        """Leave none of them behind."""
        for process in self.servers():
            os.kill(process, signal.SIGKILL)

    def test_an_array_that_takes_over_at_once(self):
        """Given a target that returns only with all the data, then nobody gets the volume until then, though the limit may be changed; it
        has arrived with that answer: nothing is completed, and nothing copied."""
        data = self.volume(64 * MIB, 64 * MIB)
        guest = self.cluster.create('one')
        moving = self.api.volume_migrate('data', 'west@d', options={'bandwidth': 2 * MIB})
        self.cluster.wait_for(lambda: self.allocated('d') >= 4 * MIB, 'some of the data')
        self.assertRaises(exceptions.ResourceLocked, self.api.volume_attach, 'data', guest)
        self.api.set_bandwidth(moving['id'], 0)
        ended = self.cluster.ended(moving, timeout=120)
        self.assertEqual(Status.COMPLETED, ended['status'], ended)
        self.assertEqual([*ASKED, 'delete_source_volume'], self.steps(ended))
        self.assertEqual(('target driver', DECLINES), self.way())
        self.assert_is(data, 'west@d')

    def test_an_abort_while_an_array_moves_it(self):
        """Given a volume that its array moves to another pool, or that an array takes over at once, in either case for
        minutes, when that is aborted, then it ends soon, and nothing of it is left; the volume is where it was, and can be moved."""
        data = self.volume(64 * MIB, 64 * MIB)
        for target, array, pool in (('east@a#slow', 'a', 'slow'), ('west@d', 'd', 'fast')):
            moving = self.api.volume_migrate('data', target, options={'bandwidth': MIB // 2})
            self.cluster.wait_for(lambda: self.allocated(array, pool) >= MIB, 'some of the data')   # noqa: B023 - called here
            self.api.abort(moving['id'])
            ended = self.cluster.ended(moving, timeout=60)
            self.assertEqual((Status.CANCELLED, []), (ended['status'], ended['debts']), ended)
            self.assertEqual(set(), self.arrays[array].files(pool))
            self.assert_is(data, 'east@a')
        self.assertEqual(Status.COMPLETED, self.migrate('west@d')['status'])
        self.assert_is(data, 'west@d')

    def allocated(self, array, pool='fast'):
        """How many bytes of data an array has in LUNs."""
        return sum(path.stat().st_blocks * 512 for path in pathlib.Path(self.arrays[array].pools[pool]).glob('*.raw'))

    def test_an_array_without_features_and_back(self):
        """Given an array that can only keep data, when a volume is to go there, then both drivers are asked, decline, and it is copied;
        when it is to leave again, then the other array takes it over from the export of a file."""
        data = self.volume(64 * MIB, 32 * MIB)
        ended = self.migrate('west@plain')
        self.assertEqual([*ASKED, *COPIED, 'delete_source_volume'], self.steps(ended))
        self.assertEqual(('host copy', f'{DECLINES}, and the target array does not take it over'), self.way())
        lun = self.plain / f'{self.api.volume_show("data")["lun"]}.raw'
        self.assertTrue(lun.read_bytes() == data, 'the data differs')
        self.assertLessEqual(lun.stat().st_blocks * 512, 40 * MIB)
        self.assertEqual([set()] * 4, [array.files() for array in self.arrays.values()])
        self.cluster.wait_for(lambda: not self.servers(), 'the end of all exports')
        self.assertIn('complete_migration_target', self.steps(self.migrate('east@c')))
        self.assertFalse(list(self.plain.glob('*.raw')))
        self.cluster.wait_for(lambda: not self.servers(), 'the end of all exports')
        self.assert_is(data, 'east@c')


class MixedTlsTest(RealArraysCase):
    """The array `a` wants TLS, the others do not; the agents have certificates, their other backends none."""

    def prepare(self):
        keys = make_keys(self.temp_dir / 'keys')
        self.arrays['a'] = self.useFixture(Array('a', ('fast', 'slow'), keys=keys))
        self.options_of_daemons = {'volume': {'tls_credentials': keys}}

    def test_there_and_back(self):
        """Given a target that has no certificates to take over with, then it declines, and its agent copies with its own; on the way back
        the array that wants TLS takes over from one that knows of none."""
        data = self.volume(32 * MIB, 32 * MIB)
        ended = self.migrate('west@b')
        self.assertEqual([*ASKED, *COPIED, 'delete_source_volume'], self.steps(ended))
        self.assert_is(data, 'west@b')
        self.assertIn('complete_migration_target', self.steps(self.migrate('east@a#fast')))
        self.assert_is(data, 'east@a')
