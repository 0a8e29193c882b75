"""The lab's hosts are what they claim to be: separate machines with real guests, whose trouble can be arranged at will."""
import signal
import socket
import sys
import urllib.parse
import uuid

import sqlalchemy
import testtools

from tests.lab import Console, LabError, LabFixture, guest, services, wait_until
from tests.lab.disk import check_fill, read_records


class HostCase(testtools.TestCase):
    """Two hosts as new, and ways to put a guest on them."""

    def setUp(self):
        """Take the lab of this process."""
        super().setUp()
        self.lab = self.useFixture(LabFixture(hosts=2)).lab
        self.alpha, self.beta = self.lab.host('alpha'), self.lab.host('beta')

    def boot(self, disks=(), **workload):
        """Start a guest with the workload of guest.command_line; returns its uuid and its console."""
        identity = str(uuid.uuid4())
        self.directory = self.lab.instances / identity
        for host in self.lab.hosts.values():
            (host.instances_outside / identity).mkdir()
        disks = [(target, form, source or self.directory / f'{target}.{form}') for target, form, source in disks]
        xml = guest.domain_xml(identity, f'vm-{identity[:8]}', self.directory, self.lab.initrd, guest.command_line(**workload), disks=disks)
        path = self.lab.folder / 'state' / f'{identity}.xml'
        path.write_text(xml)
        console = Console(self.lab.console_paths(identity))
        self.addCleanup(console.close)
        for target, form, _ in disks:
            if form == 'qcow2':
                for host in self.lab.hosts.values():
                    host.run(['qemu-img', 'create', '-q', '-f', 'qcow2', self.directory / f'{target}.qcow2', '64M'])
        self.alpha.virsh('create', str(path))
        return identity, console

    def migrate(self, identity, source, destination, *flags):
        """Move a guest with libvirt's own command."""
        source.virsh('migrate', '--live', '--p2p', '--undefinesource', *flags, identity, destination.peer_uri, '--migrateuri',
                     f'tcp://{destination.ip}', timeout=90)


class HostTest(HostCase):
    """Two machines, as far as anything that runs there can see."""

    def test_own_names_identities_and_files(self):
        """Given two hosts: names, libvirt's identity, boot id, processes and instances are each one's own; shared storage is not."""
        for what in (['hostname'], ['virsh', 'capabilities'], ['cat', '/proc/sys/kernel/random/boot_id']):
            self.assertNotEqual(self.alpha.run(what).stdout, self.beta.run(what).stdout, what)
        (self.alpha.instances_outside / 'mark').write_text('alpha')
        self.assertEqual('alpha', self.alpha.run(['cat', self.lab.instances / 'mark']).stdout)
        self.assertNotEqual(0, self.beta.run(['cat', self.lab.instances / 'mark'], check=False).returncode)
        self.alpha.run(['touch', self.lab.shared / 'mark'])
        self.assertEqual(0, self.beta.run(['cat', self.lab.shared / 'mark']).returncode)
        sleeper = self.alpha.popen(['sleep', '1000'])
        self.addCleanup(sleeper.wait)
        self.addCleanup(sleeper.kill)
        self.assertIn(sleeper.program, self.alpha.processes())
        self.assertNotIn('sleep 1000', self.beta.run(['ps', 'ax']).stdout)
        self.assertIn('sleep 1000', self.alpha.run(['ps', 'ax']).stdout)
        self.assertNotEqual('alpha', self.alpha.libvirt_name)
        self.assertEqual(self.alpha.libvirt_name, self.alpha.virsh('hostname').strip())

    def test_cut_and_healed(self):
        """Given a host that is cut off the network, or from svc only, connections fail accordingly, and work again once healed."""
        uri = self.lab.export_nbd('probe', 1)
        reach_svc = ['timeout', '3', 'qemu-img', 'info', uri]
        reach_beta = ['timeout', '3', 'virsh', '-c', self.beta.peer_uri, 'version']

        def reached(host):
            return tuple(host.run(argv, check=False).returncode == 0 for argv in (reach_svc, reach_beta))
        self.assertEqual((True, True), reached(self.alpha))
        self.alpha.cut()
        self.assertEqual((False, False), reached(self.alpha))
        self.alpha.heal()
        self.assertEqual((True, True), reached(self.alpha))
        self.alpha.cut_from_services()
        self.assertEqual((False, True), reached(self.alpha))
        self.alpha.heal()
        self.assertEqual((True, True), reached(self.alpha))

    def test_power_cut(self):
        """Given a host whose power is cut and comes back: no guest, no program, another boot id, the same identity and files."""
        identity, console = self.boot()
        console.wait_ticks()
        boot_id = self.alpha.run(['cat', '/proc/sys/kernel/random/boot_id']).stdout
        host_uuid = self.alpha.virsh('capabilities').partition('<uuid>')[2].partition('</uuid>')[0]
        self.alpha.crash()
        self.assertRaises(LabError, self.alpha.run, ['true'])
        self.alpha.boot()
        self.assertEqual([], self.alpha.domains())
        self.assertNotEqual(boot_id, self.alpha.run(['cat', '/proc/sys/kernel/random/boot_id']).stdout)
        self.assertIn(host_uuid, self.alpha.virsh('capabilities'))
        self.assertTrue((self.alpha.instances_outside / identity / 'console.log').exists())

    def test_power_cuts_do_not_disturb_the_others(self):
        """Given hosts that lose power and come back, in whatever order, svc and the other host are reached at once all the time."""
        reach_beta = ['timeout', '1', 'virsh', '-c', self.beta.peer_uri, 'version']
        for round_ in range(3):
            for host in (self.alpha, self.beta):
                host.crash()
                uri = urllib.parse.urlsplit(self.lab.export_nbd(f'volume{round_}{host.name}', 1))
                socket.create_connection((uri.hostname, uri.port), timeout=0.5).close()
                host.boot()
                self.assertEqual(0, self.alpha.run(reach_beta, check=False).returncode)

    def test_libvirtd_killed(self):
        """Given libvirtd that is killed and started again, the guest runs on all the while and is known again."""
        identity, console = self.boot()
        console.wait_ticks()
        self.alpha.kill_libvirtd()
        self.assertRaises(LabError, self.alpha.virsh, 'list')
        console.wait_ticks()
        self.alpha.start_libvirtd()
        self.alpha.wait_ready()
        self.assertEqual([identity], self.alpha.domains())

    def test_reset(self):
        """Given a host with a guest, a program, files, a cut and no libvirtd, and one without power: after the reset both are as new."""
        self.boot()
        self.alpha.popen(['sleep', '1000'])
        (self.lab.shared / 'file').write_text('')
        self.lab.export_nbd('volume', 1)
        self.alpha.cut()
        self.alpha.kill_libvirtd()
        self.beta.crash()
        self.lab.reset()
        for host in (self.alpha, self.beta):
            self.assertEqual([], host.domains())
            self.assertEqual([host.libvirtd_pid], host.processes())
            self.assertEqual([], list(host.instances_outside.iterdir()))
        self.assertEqual([], list(self.lab.shared.iterdir()))
        self.assertEqual(0, self.alpha.run(['virsh', '-c', self.beta.peer_uri, 'version']).returncode)


class DaemonTest(HostCase):
    """Programs with a log, in a host."""

    def test_life(self):
        """Given a program in a host: it is waited for by its log, frozen, asked to end, started again, killed; status knows it."""
        script = 'echo ready in $(hostname); trap "echo asked; exit 5" TERM; while :; do sleep 0.05; done'
        daemon = self.lab.start_daemon('worker', ['sh', '-c', script], self.alpha)
        daemon.wait_for('ready in alpha.lab')
        self.assertIn(daemon.pid, self.alpha.processes())
        self.assertIn(('worker', True), [(entry['name'], entry['running']) for entry in self.lab.status()['daemons']])
        self.assertRaises(LabError, self.lab.start_daemon, 'worker', ['true'], self.alpha)
        self.assertEqual(5, daemon.terminate())
        self.assertFalse(daemon.running())
        self.assertIn('asked', daemon.output())
        daemon.start().wait_for('ready')
        self.assertNotIn('asked', daemon.output())
        pid = daemon.pid
        daemon.kill()
        self.assertNotIn(pid, self.alpha.processes())
        self.assertEqual(-signal.SIGKILL, daemon.process.returncode)

    def test_a_program_that_ends_early(self):
        """Given a program that ends before it is ready, the wait says with which code and what it said."""
        daemon = self.lab.start_daemon('broken', ['sh', '-c', 'echo no such luck; exit 3'], self.alpha)
        error = str(self.assertRaises(LabError, daemon.wait_for, 'ready'))
        self.assertIn('ended with 3', error)
        self.assertIn('no such luck', error)


class GuestTest(HostCase):
    """Guests count, write, move, and end."""

    def test_a_writing_guest_moves_with_its_disk_and_back(self):
        """Given a guest that writes: block migration there and back loses no tick and no record, and it shuts down when asked."""
        identity, console = self.boot([('vda', 'qcow2', None)], write=0.02, fill=4)
        console.wait_for('filled 4')
        console.wait_written()
        for source, destination in ((self.alpha, self.beta), (self.beta, self.alpha)):
            self.migrate(identity, source, destination, '--copy-storage-all')
            self.assertEqual(([], [identity]), (source.domains(), destination.domains()))
            console.wait_written()
        self.assertEqual([], console.missing())
        self.assertLess(console.largest_gap(), 5)
        self.alpha.virsh('shutdown', identity)
        console.wait_for('power button')
        wait_until(lambda: not self.alpha.domains(), 20, 'end of the guest')
        disk = self.directory / 'vda.qcow2'
        records = read_records(disk, place=self.alpha)
        records.check(console.last_written())
        self.assertGreater(records.whole, 6)
        check_fill(disk, 4, place=self.alpha)

    def test_a_guest_on_a_volume_moves_without_copying(self):
        """Given a guest whose disk is an NBD export: it moves, goes on writing, and the volume holds every record."""
        uri = self.lab.export_nbd('volume1', 64)
        identity, console = self.boot([('vda', 'nbd', uri)], write=0.02)
        console.wait_written()
        self.migrate(identity, self.alpha, self.beta)
        console.wait_written()
        acknowledged = console.last_written()
        self.beta.virsh('destroy', identity)
        read_records(self.lab.folder / 'volumes' / 'volume1.raw', 'raw').check(acknowledged)

    def test_a_restarted_guest_goes_on_with_its_records(self):
        """Given a guest that is cut from power and started again, it goes on after the last record: none is overwritten or left out."""
        identity, console = self.boot([('vda', 'qcow2', None)], write=0.02)
        console.wait_written(5)
        self.alpha.virsh('destroy', identity)
        first = console.last_written()
        self.alpha.virsh('create', str(self.lab.folder / 'state' / f'{identity}.xml'))
        wait_until(lambda: console.last_written() > first + 3, 30, 'records after the restart')
        last = console.last_written()
        self.alpha.virsh('destroy', identity)
        read_records(self.directory / 'vda.qcow2', place=self.alpha).check(last)

    def test_a_guest_ends_by_itself(self):
        """Given a guest that is told to power itself off after 4 s, it does, by its own account."""
        _, console = self.boot(poweroff=4)
        console.wait_for('powers off')
        wait_until(lambda: not self.alpha.domains(), 20, 'end of the guest')

    def test_a_guest_that_does_not_converge(self):
        """Given a guest that rewrites memory faster than the allowed bandwidth, its migration is still under way when aborted."""
        identity, console = self.boot(dirty=48)
        console.wait_ticks()
        self.alpha.virsh('migrate-setspeed', identity, '5')
        mover = self.lab.start_daemon('mover', ['virsh', '-c', self.alpha.uri, 'migrate', '--live', '--p2p', identity, self.beta.peer_uri,
                                                '--migrateuri', f'tcp://{self.beta.ip}'])

        def iterations():
            lines = self.alpha.virsh('domjobinfo', identity).splitlines()
            return next((int(line.split()[-1]) for line in lines if line.startswith('Iteration')), 0)
        wait_until(lambda: iterations() >= 2, 60, 'a second round of copying', interval=0.2)
        self.alpha.virsh('domjobabort', identity)
        wait_until(lambda: not mover.running(), 20, 'end of the migration')
        self.assertEqual(([identity], []), (self.alpha.domains(), self.beta.domains()))
        console.wait_ticks()


class ServiceTest(HostCase):
    """Broker and databases in svc."""

    def test_a_crashed_broker_comes_back_where_it_was(self):
        """Given the broker: hosts and this machine reach it; after a crash nobody does; started again it has the same URL."""
        url = self.lab.start_service('rabbitmq')
        address = urllib.parse.urlsplit(url)
        code = f'import socket; socket.create_connection(("{address.hostname}", {address.port}), timeout=3)'

        def reached():
            return self.alpha.run([sys.executable, '-c', code], check=False).returncode == 0
        self.assertTrue(reached())
        socket.create_connection((address.hostname, address.port), timeout=3).close()
        self.assertEqual(url, self.lab.start_service('rabbitmq'))
        services.stop(self.lab, 'rabbitmq')
        self.assertFalse(reached())
        self.assertNotIn('rabbitmq', self.lab.status()['services'])
        self.assertEqual(url, self.lab.start_service('rabbitmq'))
        self.assertEqual(url, self.lab.status()['services']['rabbitmq'])
        self.assertTrue(reached())

    def test_databases(self):
        """Given MariaDB and PostgreSQL in svc, a statement is answered on this machine, through the URL on record."""
        for kind in ('mariadb', 'postgresql'):
            url = self.lab.start_service(kind)
            self.assertEqual(url, self.lab.status()['services'][kind])
            engine = sqlalchemy.create_engine(url)
            self.addCleanup(engine.dispose)
            with engine.connect() as connection:
                self.assertEqual(42, connection.execute(sqlalchemy.text('select 41 + 1')).scalar())

    def test_an_unknown_service(self):
        """Given a name that is no service, an error names those that are."""
        self.assertIn('rabbitmq', str(self.assertRaises(LabError, self.lab.start_service, 'oracle')))
