"""Kill a real array as a volume's migration comes to a step, bring it back, and find one volume with its data and nothing left.

Real daemons and real storage daemons. The conductor stands still once it has stored the step and before it sends it; then the array is
killed, the conductor goes on, and when the array's agent has told that it is offline the array is started again. Whether the
migration succeeds or is undone depends on the step; in both cases one array has the volume, whole, where the database says.
"""
import os
import pathlib
import signal

import testscenarios

from migrator.conductor.db import tables
from migrator.states import Status
from tests import base, services
from tests.cluster import Cluster
from tests.lab.array import Array

MIB = 1 << 20
SIZE = 128 * MIB

#: What is gone through where the target takes the volume over, and where it is copied.
TAKEN = ('migrate_volume', 'export_volume', 'migrate_volume_target', 'complete_migration_target', 'delete_source_volume')
COPIED = ('export_volume', 'create_target_volume', 'copy_volume', 'verify_volume', 'delete_source_volume')
#: Where the loss of an array can only delay: both arrays may be needed, and the target is in charge already.
COMMITTED = ('complete_migration_target', 'delete_source_volume')


class TestKillArrays(testscenarios.WithScenarios, base.TestCase):
    """a at one agent, b at another; the volume is at a and is to go to b."""

    timeout = 240
    scenarios = [(f'{"copied" if forced else "taken over"}, {array} at {step}', {'forced': forced, 'array': array, 'step': step})
                 for forced, steps in ((False, TAKEN), (True, COPIED)) for step in steps for array in 'ab']

    def setUp(self):
        super().setUp()
        urls = self.useFixture(services.Broker()).url, self.useFixture(services.Database('mysql')).url
        self.arrays = {name: self.useFixture(Array(name)) for name in 'ab'}
        made = {name: {'driver': 'qsd', 'pools': f'fast:{array.pools["fast"]}', 'format': 'raw', 'qmp_socket': array.socket,
                       'listen_address': array.address, 'listen_port': array.port, 'array_timeout': 2, 'array_patience': 5}
                for name, array in self.arrays.items()}
        self.cluster = self.useFixture(Cluster(*urls, hosts=(), arm=True, arrays={'east': {'a': made['a']}, 'west': {'b': made['b']}}))
        self.api = self.cluster.api

    def test_it(self):
        self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_create('data', SIZE, 'east@a#fast'))['status'])
        data = os.urandom(SIZE)
        with open(self.file(), 'r+b') as stream:
            stream.write(data)
        moving = self.reach_step()
        self.arrays[self.array].kill()
        self.conductor.send_signal(signal.SIGCONT)
        name = {'a': 'east@a', 'b': 'west@b'}[self.array]
        self.cluster.wait_for(lambda: self.api.backend_show(name)['state'] == 'offline', 'the array offline')
        self.arrays[self.array].start()
        ended = self.cluster.ended(moving, timeout=120)
        if self.step in COMMITTED:
            self.assertEqual(Status.COMPLETED, ended['status'], ended)
        at = 'west@b' if ended['status'] == Status.COMPLETED else 'east@a'
        self.assertEqual([], self.settled(at), ended)
        self.assertTrue(self.file().read_bytes() == data, f'the data is not what was written: {ended}')

    @property
    def conductor(self):
        """The conductor's process."""
        return self.cluster.daemons['conductor-0'].process

    def file(self):
        """Where the catalogue has the volume's data."""
        row = self.api.volume_show('data')
        return pathlib.Path(self.arrays[row['pool'].partition('@')[2].partition('#')[0]].pools['fast']) / f'{row["lun"]}.raw'

    def reach_step(self):
        """Ask for the migration; returns when the conductor has stored the step, and stands still."""
        self.cluster.kill_at('after-commit', f'start:{self.step}', 'conductor-0', signal.SIGSTOP)
        moving = self.api.volume_migrate('data', 'west@b', options={'force_host_copy': self.forced})
        reached = self.cluster.folder / 'reached-by-conductor-0'
        self.cluster.wait_for(reached.exists, f'the conductor at {self.step}', 60)
        return moving

    def settled(self, at):
        """Give the violations once what is owed is paid: at once if there are none."""
        try:
            self.cluster.wait_for(lambda: not self.violations(at), 'no violation', 60)
        except Exception:
            return self.violations(at)
        return []

    def violations(self, at):
        """Say in words what is not as it must be."""
        found = [] if self.api.volume_show('data')['pool'].startswith(at) else [f'it is not at {at}']
        luns = [name for array in self.arrays.values() for name in array.files() if name.endswith('.raw')]
        if len(luns) != 1:
            found.append(f'there are {luns}')
        owed = [debt for debt in self.cluster.rows(tables.debt) if debt.paid_at is None]
        left = {'exports': [f'{array.name}: {file}' for array in self.arrays.values() for file in array.exports()],
                'locks': self.cluster.rows(tables.resource_lock), 'debts': owed,
                'places': [s for s in self.cluster.rows(tables.service) if s.places]}
        return found + [f'{what} are left: {rows}' for what, rows in left.items() if rows]
