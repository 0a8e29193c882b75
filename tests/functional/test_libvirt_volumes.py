"""Volumes of libvirt guests on a real array: what was written is there, whatever becomes of the array, the guest's host and libvirtd."""
import dataclasses
import subprocess
import unittest
import uuid

from migrator import exceptions
from migrator.rpc import volume_facts
from migrator.states import GuestState, PauseReason
from tests.cloud_case import CloudCase
from tests.contract import harness as hands
from tests.functional.lab_volumes import SIZE, LabVolumes
from tests.functional.libvirt_harness import BUSY
from tests.functional.test_libvirt_migration import Case
from tests.lab import disk, processes


class VolumeCase(Case):
    """A guest at alpha that writes all the time to a volume which is attached while it runs."""

    def setUp(self):
        super().setUp()
        self.uuid = self.given_guest(**BUSY)
        self.console = self.follow(self.uuid)
        self.connection = self.harness.export()
        self.attachment = volume_facts.Attachment(id=str(uuid.uuid4()), volume_id=str(uuid.uuid4()), instance_uuid=self.uuid,
                                                  connection=self.connection)
        self.a.attach_volume(self.attachment)
        self.console.wait_written()

    def fail_array(self, driver=None):
        """Cut the array's power; returns once the guest stands still."""
        self.harness.set_export(self.connection, answers=False)
        processes.wait_until(lambda: (driver or self.a).locate(self.uuid).reason is PauseReason.IO_ERROR, 20, 'a guest that stands still')

    def let_go_on(self, driver):
        """Try to let the guest go on, as often as its agent would."""
        processes.wait_until(lambda: not driver.resume_stalled(self.uuid), 40, 'a guest that goes on')

    def assert_nothing_lost(self):
        """All that the guest knew to be written is on the volume, it never saw an error, and its clock did not skip."""
        disk.read_records(self.connection.uri, 'raw').check(self.console.last_written())
        self.assertNotIn('write error', self.console.text())
        self.assertEqual([], self.console.missing())


class Array(VolumeCase, unittest.TestCase):
    """The array dies under a guest that writes."""

    def test_a_guest_outlives_the_array_again_and_again(self):
        """Given an array that is killed and started three times, also with libvirtd restarted in between, no write is lost."""
        for restart_libvirtd in (False, False, True):
            before = self.console.last_written()
            self.fail_array()
            self.assertIn('Connection refused', self.a.resume_stalled(self.uuid))
            if restart_libvirtd:
                self.alpha.kill_libvirtd()
                self.alpha.start_libvirtd()
                self.alpha.wait_ready()
            self.assertEqual((self.uuid,), self.a.stalled())
            self.harness.set_export(self.connection, answers=True)
            self.let_go_on(self.a)
            self.console.wait_written()
            self.assertLess(before, self.console.last_written())
        self.a.stop_instance(self.uuid, 0)
        self.assert_nothing_lost()

    def test_an_array_that_answers_without_the_volume_is_not_enough(self):
        """Given a daemon that runs and does not serve the volume yet, the guest goes on waiting."""
        self.fail_array()
        self.harness.volumes.start_empty()
        self.assertIn('no such export', self.a.resume_stalled(self.uuid))
        self.assertEqual(GuestState.PAUSED, self.a.locate(self.uuid).state)
        self.harness.set_export(self.connection, answers=True)
        self.let_go_on(self.a)
        self.console.wait_written()
        self.a.stop_instance(self.uuid, 0)
        self.assert_nothing_lost()


class Moves(VolumeCase, unittest.TestCase):
    """Live migration of a guest with a volume that was attached while it ran."""

    def test_the_volume_goes_there_and_back_under_writes(self):
        plans, _ = self.there_and_back(self.uuid)
        self.assertEqual([('vda',), ('vda',)], [p.copy for p in plans])
        self.assert_nothing_lost()

    def test_at_the_other_host_it_is_guarded_and_detached_as_at_the_first(self):
        """Given a guest that has moved, when the array dies it stands still there, goes on, and lets go of the volume."""
        self.move(self.a, self.b, self.uuid)
        self.console.wait_written()
        self.fail_array(self.b)
        self.harness.set_export(self.connection, answers=True)
        self.let_go_on(self.b)
        self.console.wait_written()
        self.b.detach_volume(self.attachment)
        disk.read_records(self.connection.uri, 'raw').check(self.console.last_written())
        self.assertEqual(['vda'], [d.target for d in hands.guest_of(self.b, self.uuid).disks])


    def test_an_array_that_dies_in_mid_migration(self):
        """Given a guest that is being copied when its volume fails, it stays where it is, and goes on there with nothing lost."""
        plan = hands.plan_for(self.a, self.b, self.uuid, bandwidth_mib=self.harness.slow_mib)
        with self.copying(plan, self.b.pre_live_migration(plan)) as outcome:
            hands.wait_for(lambda: self.a.progress(self.uuid).disk_processed, 'a stream to the other host', 20)
            self.fail_array()
            self.assertEqual(((), ''), (self.a.stalled(), self.a.resume_stalled(self.uuid)))
            self.alpha.virsh('migrate-setspeed', self.uuid, '1000')
            outcome.wait(self.harness.patience)
        self.assertIsInstance(outcome.error, exceptions.DriverError)
        self.undo(plan)
        self.assertEqual((self.uuid,), self.a.stalled())
        self.harness.volumes.restore()
        self.let_go_on(self.a)
        self.console.wait_written()
        self.assert_where(self.uuid, hands.AT_A)
        self.a.stop_instance(self.uuid, 0)
        self.assert_nothing_lost()


class Detached(VolumeCase, unittest.TestCase):
    """What detaching promises."""

    def test_nobody_has_the_export_open_and_another_guest_goes_on_with_the_volume(self):
        self.a.detach_volume(self.attachment)
        last = self.console.last_written()
        self.assertEqual(0, self.harness.volumes.clients())
        other = self.given_guest(**BUSY)
        console = self.follow(other)
        self.a.attach_volume(dataclasses.replace(self.attachment, id=str(uuid.uuid4()), instance_uuid=other))
        console.wait_written()
        self.a.stop_instance(other, 0)
        self.assertLess(last, console.last_written())
        disk.read_records(self.connection.uri, 'raw').check(console.last_written())


class Encrypted(Case, unittest.TestCase):
    """Volumes behind TLS: the hypervisor has the certificates, in [nbd_tls_x509_cert_dir] of qemu.conf."""

    def keys(self):
        """Make an authority, and of it a certificate that is good for the server's address and for clients; returns their folder."""
        folder = self.lab.shared / 'keys'
        folder.mkdir()

        def openssl(*words):
            subprocess.run(['openssl', *words], cwd=folder, check=True, capture_output=True, timeout=30)
        new = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj')
        openssl('req', '-x509', *new, '/CN=authority', '-days', '2', '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem')
        openssl('req', *new, '/CN=server', '-keyout', 'server-key.pem', '-out', 'request.pem')
        (folder / 'extensions').write_text(f'subjectAltName=IP:{self.lab.svc.ip}\n')
        openssl('x509', '-req', '-in', 'request.pem', '-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial', '-days', '2',
                '-extfile', 'extensions', '-out', 'server-cert.pem')
        for kind in ('key', 'cert'):
            (folder / f'client-{kind}.pem').write_bytes((folder / f'server-{kind}.pem').read_bytes())
        return folder

    def trust(self, host, keys):
        """Give a host's hypervisor the certificates until the end of the test."""
        configuration = host.folder / 'etc' / 'qemu.conf'
        before = configuration.read_text()

        def write(text):
            configuration.write_text(text)
            host.stop_libvirtd()
            host.start_libvirtd()
            host.wait_ready()
        self.addCleanup(write, before)
        write(f'{before}nbd_tls_x509_cert_dir = "{keys}"\n')

    def serve(self, keys, port=10890):
        """Serve a volume over TLS to who has a certificate; returns the path of its image and its Connection."""
        image = self.lab.shared / 'encrypted.raw'
        with open(image, 'wb') as stream:
            stream.truncate(SIZE)
        server = self.lab.svc.popen(['nbdkit', '--foreground', '--ipaddr', self.lab.svc.ip, '--port', str(port), '--tls', 'require',
                                     '--tls-verify-peer', '--tls-certificates', keys, 'file', image], stdin=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait, 10)
        self.addCleanup(server.kill)
        listens = ['ss', '-Hltn', f'sport = :{port}']
        processes.wait_until(lambda: self.lab.svc.run(listens).stdout, 10, 'the server')
        return image, volume_facts.Connection(f'nbds://{self.lab.svc.ip}:{port}/volume', writable=True, size=SIZE, tls=True)

    def test_a_volume_behind_tls_is_attached_moves_and_is_detached(self):
        keys = self.keys()
        for host in (self.alpha, self.beta):
            self.trust(host, keys)
        image, connection = self.serve(keys)
        uuid_ = self.given_guest(**BUSY)
        console = self.follow(uuid_)
        attachment = volume_facts.Attachment(id=str(uuid.uuid4()), volume_id=str(uuid.uuid4()), instance_uuid=uuid_, connection=connection)
        self.a.attach_volume(attachment)
        self.assertEqual('vdb', self.a.attach_volume(attachment)['target'])
        console.wait_written()
        self.assertEqual(connection.uri, hands.guest_of(self.a, uuid_).disks[1].path)
        self.assertEqual((), self.b.check_can_live_migrate_destination(hands.guest_of(self.a, uuid_)).volumes_silent)
        self.move(self.a, self.b, uuid_)
        console.wait_written()
        self.b.detach_volume(attachment)
        disk.read_records(image, 'raw').check(console.last_written())
        self.b.stop_instance(uuid_, 0)

    def test_a_host_without_the_certificates_says_so_and_the_guest_runs_on(self):
        _, connection = self.serve(self.keys())
        uuid_ = self.given_guest()
        attachment = volume_facts.Attachment(id=str(uuid.uuid4()), volume_id=str(uuid.uuid4()), instance_uuid=uuid_, connection=connection)
        before = hands.guest_of(self.a, uuid_)
        self.assertRaises(exceptions.DriverError, self.a.attach_volume, attachment)
        self.assertEqual(before, hands.guest_of(self.a, uuid_))


class Agents(CloudCase):
    """Nobody has to do anything: the guest's own agent looks after it, and says what happened."""

    def setUp(self):
        super().setUp()
        self.volumes = LabVolumes(self.lab)
        self.addCleanup(self.volumes.close)
        connection = self.volumes.export()
        self.guest = self.cloud.boot('alpha', disks=[{'target': 'vda', 'uri': connection.uri, 'serial': str(uuid.uuid4())}])
        self.uri = connection.uri

    def shown(self, state):
        """Wait until the catalogue has the guest in a state; returns what it says of it."""
        return self.wait_for(lambda: (said := self.api.instance_show(self.guest.uuid))['state'] == state and said, f'{state}, as told')

    def test_a_guest_goes_on_by_itself_once_its_array_is_back(self):
        """Given an array that dies twice, once while the agent is dead too, nothing is lost, and the note says since when and why."""
        for agent_dies in (False, True):
            self.volumes.cut()
            self.wait_for(lambda: 'does not answer' in self.shown('paused')['note'], 'the reason')
            if agent_dies:
                self.cloud.daemons['alpha'].kill()
                self.cloud.restart('alpha')
            self.volumes.restore()
            self.wait_for(lambda: 'stood still from' in self.shown('running')['note'], 'its end')
            self.guest.console.wait_written()
        self.api.instance_stop(self.guest.uuid, timeout=0)
        self.shown('stopped')
        disk.read_records(self.uri, 'raw').check(self.guest.console.last_written())
        self.assertEqual([], self.guest.console.missing())
