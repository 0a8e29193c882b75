"""The command line as users run it: real processes against real daemons with simulated hypervisors, RabbitMQ and MariaDB."""
import json
import os
import pathlib
import subprocess
import sys

import sqlalchemy as sa

from migrator.conductor.db import tables
from tests import base, services
from tests.cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOBODY = '00000000-0000-0000-0000-000000000000'
#: What heartbeats write at all times.
RESTLESS = {'last_seen', 'monotonic', 'sequence', 'facts', 'updated_at'}


class CommandLineCase(base.TestCase):
    """Real daemons, and the command as its users run it."""

    timeout = 240
    hosts, arrays = ('one', 'two', 'off'), None

    def setUp(self):
        super().setUp()
        self.cloud = self.useFixture(Cluster(self.useFixture(services.Broker()).url, self.useFixture(services.Database('mysql')).url,
                                             hosts=self.hosts, arrays=self.arrays))

    def start(self, *argv):
        """Start the command; the broker is known by the environment."""
        env = {**os.environ, 'MIGRATOR_TRANSPORT_URL': self.cloud.transport_url, 'PYTHONPATH': str(ROOT)}
        return subprocess.Popen([sys.executable, '-m', 'migrator.cli.main', *argv], env=env, cwd=self.temp_dir, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def migrator(self, *argv, seconds=60):
        """Run it to its end. Returns (exit code, standard output, standard error)."""
        process = self.start(*argv)
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            process.kill()
        return process.returncode, out, err

    def view(self, *argv):
        """Run it, take its JSON."""
        code, out, err = self.migrator(*argv, '-f', 'json')
        self.assertEqual((0, ''), (code, err), out)
        return json.loads(out)

    def dump(self, moving=None):
        """The whole database but for what heartbeats write, and the row of a migration that goes on meanwhile."""
        def read(tx):
            return {table.name: sorted(repr(wanted(row)) for row in tx.execute(sa.select(table)).mappings() if row.get('id') != moving)
                    for table in tables.metadata.sorted_tables}

        def wanted(row):
            return {name: value for name, value in row.items() if name not in RESTLESS}
        return self.cloud.database.run(read)


class CommandLineTest(CommandLineCase):

    def test_an_instance_is_made_moved_stopped_and_deleted(self):
        self.view('instance', 'create', 'web', '--host', 'one', '--disk', 'target=vda,size=1M', '--wait')
        guest = self.view('instance', 'show', 'web')
        self.assertEqual(('one', 'running'), (guest['host'], guest['state']))
        verdict = self.view('live-migrate', 'web', 'two', '--dry-run')
        self.assertTrue(verdict['possible'], verdict)
        code, out, err = self.migrator('live-migrate', 'web', 'two', '--wait', '--request-id', 'move-1')
        self.assertEqual((0, ''), (code, err))
        self.assertIn('completed', out)
        self.assertEqual([], self.cloud.violations(guest['uuid'], 'two'))
        again = self.view('live-migrate', 'web', 'two', '--request-id', 'move-1')
        self.assertEqual([again['id']], [m['id'] for m in self.view('migration', 'list')])
        for word in ('stop', 'delete'):
            self.assertEqual('completed', self.view('instance', word, 'web', '--wait')['status'])
        self.assertEqual([], self.view('instance', 'list'))

    def test_abort_while_it_copies(self):
        guest = self.cloud.create('one', memory_mib=256, cmdline='dirty_mib=4096', name='busy')
        waiting = self.start('live-migrate', 'busy', 'two', '--wait')
        self.addCleanup(waiting.communicate)
        self.addCleanup(waiting.kill)
        moving = self.cloud.wait_for(lambda: self.cloud.api.list({'instance': 'busy', 'status': 'running'}), 'its migration runs')[0]
        code, out, err = self.migrator('migration', 'abort', moving['id'], '--wait')
        self.assertEqual((0, ''), (code, err), out)
        out, err = waiting.communicate(timeout=30)
        self.assertEqual(8, waiting.returncode, err)
        self.assertRegex(err, r'\Amigrator: Cancelled: [^\n]+ aborted on request\n\Z')
        self.assertEqual([], self.cloud.violations(guest, 'one'))
        code, out, err = self.migrator('migration', 'watch', moving['id'])
        self.assertEqual((8, 1), (code, out.count('\n')), out)

    def test_bad_input_is_one_line_and_changes_nothing(self):
        self.cloud.create('one', name='web')
        self.cloud.create('one', name='idle')
        busy = self.cloud.create('one', name='busy', memory_mib=256, cmdline='dirty_mib=4096')
        self.cloud.ended(self.cloud.api.instance_stop('idle', timeout=0))
        moving = self.cloud.api.live_migrate(busy, 'two')
        self.cloud.wait_for(lambda: self.cloud.api.show(moving['id'])['status'] == 'running', 'its migration runs')
        self.cloud.api.host_disable('off', 'new memory')
        before = self.dump(moving['id'])
        for line, code, kind in (
                ('live-migrate nobody two', 3, 'InstanceNotFound'), (f'live-migrate {NOBODY} two', 3, 'InstanceNotFound'),
                ('live-migrate web nowhere', 3, 'HostNotFound'), ('live-migrate web one', 4, 'SameHost'),
                ('live-migrate web off', 4, 'HostDisabled'), ('live-migrate idle two', 4, 'InstanceNotRunning'),
                ('live-migrate busy two', 4, 'AlreadyMigrating'), ('instance stop busy', 4, 'AlreadyMigrating'),
                ('instance delete web', 4, 'InstanceRunning'), ('live-migrate web two --bandwidth much', 2, 'InvalidRequest'),
                ('live-migrate web', 2, 'InvalidRequest'), ('live-migrate web two --fast', 2, 'InvalidRequest'),
                (f'migration show {NOBODY}', 3, 'MigrationNotFound'), (f'migration abort {NOBODY}', 3, 'MigrationNotFound'),
                ('migration show 17', 2, 'InvalidRequest'), ('host disable nowhere --reason x', 3, 'HostNotFound'),
                (f'instance create web --host one --uuid {busy} --disk target=vda,size=1M', 4, 'InstanceExists'),
                ('instance create web --host nowhere --disk target=vda,size=1M', 3, 'HostNotFound')):
            self.assert_refused(line.split(), code, kind)
        self.assert_refused(['host', 'disable', 'one', '--reason', 'x' * 100_000], 2, 'InvalidRequest')
        self.assertEqual(before, self.dump(moving['id']))
        self.cloud.api.abort(moving['id'])
        self.cloud.ended(moving)

    def test_a_host_that_is_down_is_refused(self):
        self.cloud.create('one', name='web')
        self.cloud.daemons['two'].kill()
        self.cloud.wait_for(lambda: self.cloud.api.host_show('two')['state'] == 'down', 'host two is down')
        before = self.dump()
        self.assert_refused(['live-migrate', 'web', 'two'], 4, 'HostDown')
        self.assertEqual(before, self.dump())

    def assert_refused(self, argv, code, kind):
        ended, out, err = self.migrator(*argv)
        self.assertEqual((code, ''), (ended, out), (argv, err))
        self.assertRegex(err, rf'\Amigrator: {kind}: [^\n]+\n\Z', argv)


class NoBrokerTest(base.TestCase):

    def test_a_broker_that_is_not_there(self):
        argv = [sys.executable, '-m', 'migrator.cli.main', '--transport-url', 'rabbit://nobody:nothing@127.0.0.1:1/', 'host', 'list']
        result = subprocess.run(argv, capture_output=True, text=True, timeout=40, cwd=ROOT)
        self.assertEqual((6, ''), (result.returncode, result.stdout))
        self.assertRegex(result.stderr, r'\Amigrator: Unavailable: [^\n]+\n\Z')
