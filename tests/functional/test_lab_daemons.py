"""migrator's own daemons in the lab: agents in their hosts, a conductor in svc, and this process as the API tier."""
import uuid

import testtools
from oslo_config import cfg

from migrator import config, states
from migrator.rpc import transport
from migrator.rpc.conductor import ConductorAPI
from tests.lab import Console, LabFixture, guest, wait_until
from tests.lab.disk import read_records


class DaemonsTest(testtools.TestCase):
    """The lab is enough to run migrator for real."""

    def setUp(self):
        """Two hosts with their agents, a conductor, and a client."""
        super().setUp()
        self.lab = self.useFixture(LabFixture(hosts=2, services=['rabbitmq'])).lab
        self.daemons = [self.lab.start_conductor(), self.lab.start_agent('alpha'), self.lab.start_agent('beta')]
        for daemon in self.daemons:
            daemon.wait_for('is ready', 30)
        conf = config.register(cfg.ConfigOpts())
        conf([], project='migrator', default_config_files=[], default_config_dirs=[])
        self.api = ConductorAPI(conf, transport.get_transport(conf, self.lab.configuration.broker()), 'tester')
        self.addCleanup(self.api.close)
        wait_until(lambda: [host['state'] for host in self.api.hosts()] == ['up', 'up'], 30, 'both hosts up')

    def end(self, migration):
        """Wait for the end of what was asked for; it must be `completed`."""
        def look():
            view = self.api.show(migration['id'])
            return view if view['status'] in states.TERMINAL else None
        view = wait_until(look, 60, 'the end', interval=0.05)
        self.assertEqual('completed', view['status'], view)
        return view

    def test_create_move_there_and_back_stop(self):
        """Given agents in two hosts: a guest is made, moves there and back with its disk, and stops; nothing that it wrote is lost."""
        self.assertEqual({'alpha': 'alpha.lab', 'beta': 'beta.lab'}, {host['name']: host['hypervisor_name'] for host in self.api.hosts()})
        identity = str(uuid.uuid4())
        console = Console(self.lab.console_paths(identity))
        self.addCleanup(console.close)
        self.end(self.api.instance_create('alpha', {
            'uuid': identity, 'name': 'guest', 'memory_mib': guest.MEMORY_MIB, 'kernel': str(guest.kernel()),
            'initrd': str(self.lab.initrd), 'cmdline': guest.command_line(write=0.05), 'disks': [{'target': 'vda', 'size': 64 << 20}]}))
        console.wait_written()
        for here, there in (('alpha', 'beta'), ('beta', 'alpha')):
            self.end(self.api.live_migrate(identity, there))
            console.wait_written()
            self.assertEqual(there, self.api.instance_show(identity)['host'])
            self.assertEqual([], self.lab.host(here).domains())
            self.assertEqual([], list(self.lab.host(here).instances_outside.glob('*/*')))
        self.assertEqual([], console.missing())
        self.end(self.api.instance_stop(identity, timeout=20))
        read_records(self.lab.instances / identity / 'vda.qcow2', place=self.lab.host('alpha')).check(console.last_written())

    def test_daemons_end_when_asked(self):
        """Given running daemons, each ends on SIGTERM with exit code 0, and after a reset none is left in its host."""
        for daemon in self.daemons:
            self.assertEqual(0, daemon.terminate(), daemon.output()[-1000:])
        self.lab.reset()
        self.assertEqual([self.lab.host('alpha').libvirtd_pid], self.lab.host('alpha').processes())
