"""Live migrations that only real hosts can show: a guest that writes, volumes, backing files, and things that die on the way."""
import dataclasses
import re
import signal
import subprocess
import threading
import time
import unittest

from migrator import exceptions
from migrator.rpc import facts
from migrator.states import GuestState
from tests.contract import harness as hands
from tests.contract.compute_base import ComputeScenarios, Outcome
from tests.functional.libvirt_harness import BootingDriver, emulator
from tests.functional.test_libvirt_driver import LibvirtCase
from tests.lab import disk, processes
from tests.lab.console import Console

NOTHING = frozenset()


class Case(LibvirtCase, ComputeScenarios):
    """Two hosts, and guests that write on their disks and count on their consoles."""

    def setUp(self):
        super().setUp()
        self.lab = self.harness.lab
        self.alpha, self.beta = self.harness.hosts['alpha'], self.harness.hosts['beta']

    def given_spec(self, spec):
        """Create and start the guest of `spec` at a; returns its uuid."""
        self.a.create_instance(spec)
        self.a.start_instance(spec.uuid)
        return spec.uuid

    def follow(self, uuid):
        """Follow a guest's console until the end of the test."""
        console = Console(self.lab.console_paths(uuid))
        self.addCleanup(console.close)
        return console

    def there_and_back(self, uuid):
        """Move a guest from a to b and back while it writes; no tick is lost. Returns both plans and its console."""
        console = self.follow(uuid)
        console.wait_written()
        plans = []
        for source, destination in ((self.a, self.b), (self.b, self.a)):
            plans.append(self.move(source, destination, uuid))
            console.wait_written()
        self.assert_where(uuid, hands.AT_A)
        self.a.stop_instance(uuid, 0)
        self.assertEqual([], console.missing())
        return plans, console

    def undo(self, plan):
        """Take back a failed migration at both hosts; nothing is left at b."""
        self.b.rollback_live_migration_at_destination(plan)
        self.a.rollback_live_migration_at_source(plan)
        self.assertEqual(NOTHING, self.harness.files(self.b, plan.instance_uuid))

    def slow_job(self, **kwargs):
        """A prepared guest whose migration takes long: (uuid, plan, prepared)."""
        return self.given_prepared(bandwidth_mib=self.harness.slow_mib, **kwargs)


class Storage(Case, unittest.TestCase):
    """What becomes of the disks of a guest that writes all the time."""

    def test_copied_disks_there_and_back(self):
        """Given a guest that writes on a disk of the host's own, each record that it knew to be safe is there after two moves."""
        uuid = self.given_guest(disks=2, write=0.02)
        plans, console = self.there_and_back(uuid)
        self.assertEqual([('vda', 'vdb')] * 2, [p.copy for p in plans])
        disk.read_records(self.harness.first_disk(self.a, uuid)).check(console.last_written())
        self.assertEqual(NOTHING, self.harness.files(self.b, uuid))

    def test_shared_disks_there_and_back(self):
        """Given a disk on shared storage, nothing is copied and nothing is lost."""
        uuid = self.given_guest(shared=True, write=0.02)
        plans, console = self.there_and_back(uuid)
        self.assertEqual([(), ()], [p.copy for p in plans])
        disk.read_records(self.harness.first_disk(self.a, uuid)).check(console.last_written())

    def test_a_volume_there_and_back(self):
        """Given a disk on an NBD export, it is connected at both hosts and never copied."""
        uri = self.lab.export_nbd('volume', 48)
        volume = facts.NewDisk(target='vda', uri=uri, serial='vol-1')
        uuid = self.given_spec(dataclasses.replace(self.harness.spec(disks=0, write=0.02), disks=(volume,)))
        before = hands.guest_of(self.a, uuid)
        self.assertEqual(('network', uri, 'vol-1'), (before.disks[0].kind, before.disks[0].path, before.disks[0].serial))
        plans, console = self.there_and_back(uuid)
        self.assertEqual([(), ()], [p.copy for p in plans])
        disk.read_records(uri, 'raw').check(console.last_written())

    def test_a_volume_a_shared_and_a_local_disk_together(self):
        """Given one disk of each kind, only the local one is copied, and the guest has all three afterwards."""
        local, shared = self.harness.spec(write=0.02), self.harness.spec(shared=True)
        others = (dataclasses.replace(shared.disks[0], target='vdb'), facts.NewDisk(target='vdc', uri=self.lab.export_nbd('volume')))
        spec = dataclasses.replace(local, disks=(*local.disks, *others))
        uuid = self.given_spec(spec)
        before = hands.guest_of(self.a, uuid).disks
        plans, console = self.there_and_back(uuid)
        self.assertEqual([('vda',), ('vda',)], [p.copy for p in plans])
        self.assertEqual(before, hands.guest_of(self.a, uuid).disks)
        disk.read_records(self.harness.first_disk(self.a, uuid)).check(console.last_written())

    def test_a_disk_with_a_backing_file_keeps_it(self):
        """Given the same image at both hosts, only what the guest wrote is copied, onto the image there."""
        image = f'{self.lab.instances}/image.raw'
        for driver in (self.a, self.b):
            self.harness.outside(driver, image).write_bytes(b'image ' * 5000)
        spec = self.harness.spec(write=0.02)
        uuid = self.given_spec(dataclasses.replace(spec, disks=(dataclasses.replace(spec.disks[0], backing=image),)))
        console = self.follow(uuid)
        console.wait_written()
        self.move(self.a, self.b, uuid)
        console.wait_written()
        there = hands.guest_of(self.b, uuid).disks[0]
        self.assertEqual((image, 'raw'), (there.backing, there.backing_format))
        self.b.stop_instance(uuid, 0)
        path = self.harness.first_disk(self.b, uuid)
        disk.read_records(path, place=self.beta).check(console.last_written())

    def test_a_missing_backing_file_is_told_by_the_check(self):
        """Given an image that only the source has, the check says so and pre refuses without leaving anything."""
        image = f'{self.lab.instances}/image.raw'
        self.harness.outside(self.a, image).write_bytes(b'image ' * 5000)
        spec = self.harness.spec()
        uuid = self.given_spec(dataclasses.replace(spec, disks=(dataclasses.replace(spec.disks[0], backing=image),)))
        said = self.b.check_can_live_migrate_destination(hands.guest_of(self.a, uuid))
        self.assertEqual((), said.backing_found)
        plan = hands.plan_for(self.a, self.b, uuid)
        self.assert_unchanged(uuid, lambda: self.b.pre_live_migration(plan), exceptions.DriverError)

    def test_a_plan_that_takes_shared_disks_for_local_ones_touches_nothing(self):
        """Given a wrong plan, the marker on the shared storage stops it before the only copy is written over."""
        uuid = self.given_guest(shared=True)
        plan = dataclasses.replace(hands.plan_for(self.a, self.b, uuid), copy=('vda',))
        self.assert_unchanged(uuid, lambda: self.b.pre_live_migration(plan), exceptions.DestinationNotEmpty)

    def test_two_guests_cross(self):
        """Given a guest at each host, both move at the same time through the same two drivers."""
        first, second = self.given_guest(write=0.05), self.given_guest(write=0.05)
        self.move(self.a, self.b, second)
        plans = {(self.a, self.b): hands.plan_for(self.a, self.b, first), (self.b, self.a): hands.plan_for(self.b, self.a, second)}
        prepared = {pair: pair[1].pre_live_migration(plan) for pair, plan in plans.items()}
        with self.copying_pair(plans, prepared) as outcomes:
            for outcome in outcomes:
                self.assertIsNone(outcome.wait(self.harness.patience).error)
        self.assert_where(first, hands.AT_B)
        self.assert_where(second, hands.AT_A)

    def copying_pair(self, plans, prepared):
        """Start all of `plans` at once; gives their Outcomes."""
        return Together([Outcome(pair[0], plan, prepared[pair]) for pair, plan in plans.items()])


class Together(list):
    """Outcomes that are waited for at the end of a block, whatever happens in it."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for outcome in self:
            outcome.wait(60)


class Deaths(Case, unittest.TestCase):
    """What dies in mid-copy; afterwards the guest lives at the source, and can be moved."""

    def assert_lives_on(self, uuid, plan):
        """The guest still counts at a, no job is left, the failed migration can be undone, and another one succeeds."""
        hands.wait_for(lambda: hands.where(self.harness, uuid) == hands.AT_A, 'the guest alone at a', self.harness.patience)
        self.assertFalse(self.a.locate(uuid).job_active)
        with Console(self.lab.console_paths(uuid)) as console:
            console.wait_ticks()
        self.undo(plan)
        self.move(self.a, self.b, uuid)
        self.assert_where(uuid, hands.AT_B)

    def test_the_destinations_emulator(self):
        uuid, plan, prepared = self.slow_job()
        with self.copying(plan, prepared) as outcome:
            victim = hands.wait_for(lambda: emulator(self.beta, uuid), 'the incoming emulator', self.harness.patience)
            processes.send(victim, signal.SIGKILL)
            self.assertIsInstance(outcome.wait(self.harness.patience).error, exceptions.DriverError)
        self.assert_lives_on(uuid, plan)

    def test_the_sources_emulator(self):
        """A guest that dies is off at the source, with its disks, and not at the destination."""
        uuid, plan, prepared = self.slow_job()
        files = self.harness.files(self.a, uuid)
        with self.copying(plan, prepared) as outcome:
            processes.send(emulator(self.alpha, uuid), signal.SIGKILL)
            self.assertIsInstance(outcome.wait(self.harness.patience).error, exceptions.DriverError)
        hands.wait_for(lambda: hands.where(self.harness, uuid) == hands.OFF_AT_A, 'the guest off at a', self.harness.patience)
        self.undo(plan)
        self.assertEqual(files, self.harness.files(self.a, uuid))

    def await_copied(self, uuid):
        """Wait until memory flows: the destination's emulator has been running for a while then."""
        hands.wait_for(lambda: self.a.progress(uuid).memory_processed > 0, 'copied memory', self.harness.patience)

    def test_the_destinations_libvirtd(self):
        """Given a destination's libvirtd that dies and comes back, it ends the guest that it was receiving."""
        uuid, plan, prepared = self.slow_job()
        with self.copying(plan, prepared) as outcome:
            self.await_copied(uuid)
            self.beta.kill_libvirtd()
            self.assertIsInstance(outcome.wait(self.harness.patience).error, exceptions.DriverError)
            self.assertRaises(exceptions.DriverError, self.b.locate, uuid)
        self.beta.start_libvirtd()
        self.beta.wait_ready()
        self.assert_lives_on(uuid, plan)

    def test_the_destinations_libvirtd_while_it_starts_the_emulator(self):
        """Given a libvirtd that dies before it has noted the emulator's process, the guest that it keeps for ever is told of in words.

        Its note is brought into the state of that instant. When libvirtd is started once more, the undo succeeds.
        """
        uuid, plan, prepared = self.slow_job()
        with self.copying(plan, prepared) as outcome:
            self.await_copied(uuid)
            self.beta.kill_libvirtd()
            outcome.wait(self.harness.patience)
        hands.wait_for(lambda: emulator(self.beta, uuid) is None, 'the end of the incoming emulator', self.harness.patience)
        note, = (self.beta.runtime / 'qemu').glob('*.xml')
        note.write_text(re.sub('<domstatus [^>]*>', "<domstatus state='paused' reason='starting up' pid='0'>", note.read_text(), count=1))
        self.beta.start_libvirtd()
        self.beta.wait_ready()
        said = self.b.locate(uuid)
        self.assertEqual((GuestState.INCOMING, False), (said.state, said.job_active))
        files = self.harness.files(self.b, uuid)
        for _ in range(2):
            begun = time.monotonic()
            with self.assertRaises(exceptions.DriverError) as raised:
                self.b.rollback_live_migration_at_destination(plan)
            self.assertLess(time.monotonic() - begun, 15)
            self.assertIn('Restart libvirtd', str(raised.exception))
        self.assertEqual(files, self.harness.files(self.b, uuid))
        self.beta.kill_libvirtd()
        self.beta.start_libvirtd()
        self.beta.wait_ready()
        self.assert_lives_on(uuid, plan)
        self.assertEqual([], list((self.beta.runtime / 'qemu').glob('*never-ran')))

    def test_the_sources_libvirtd(self):
        uuid, plan, prepared = self.slow_job()
        with self.copying(plan, prepared) as outcome:
            self.alpha.kill_libvirtd()
            self.assertIsInstance(outcome.wait(self.harness.patience).error, exceptions.DriverError)
            self.assertRaises(exceptions.DriverError, self.a.locate, uuid)
            self.alpha.start_libvirtd()
            self.alpha.wait_ready()
        self.assert_lives_on(uuid, plan)

    def test_the_agent_at_the_source(self):
        """Given a driver's process that is killed, libvirt's job goes on without it, and the guest arrives."""
        uuid, plan, prepared = self.given_prepared(bandwidth_mib=5)
        with self.assertRaises(RuntimeError), self.copying_in_a_thread(plan, prepared):
            self.a.kill()
        self.harness.a = self.a = BootingDriver(self.harness, 'alpha')
        hands.wait_for(lambda: hands.where(self.harness, uuid) == hands.AT_B, 'the guest at b', self.harness.patience)
        self.b.post_live_migration_at_destination(plan)
        self.a.post_live_migration_at_source(plan)
        self.assertEqual(NOTHING, self.harness.files(self.a, uuid))

    def copying_in_a_thread(self, plan, prepared):
        """Run live_migration; the block runs as soon as the job does, and its error is raised at the end."""
        return Raising(self, plan, prepared)

    def test_the_network_between_the_hosts(self):
        """Given a destination that is cut off for good, an abort gives the guest back to the source."""
        uuid, plan, prepared = self.slow_job()
        with self.copying(plan, prepared) as outcome:
            self.beta.cut()
            self.a.abort_live_migration(uuid)
            # libvirt waits for the destination's answer until its own keepalive gives up: half a minute.
            self.assertIsInstance(outcome.wait(2 * self.harness.patience).error, exceptions.AgentError)
            self.beta.heal()
        self.assert_lives_on(uuid, plan)

    def test_the_guest_by_its_own_doing(self):
        """Given a guest that powers itself off in mid-copy, its disks stay whole at the source and it is off there."""
        spec = self.harness.spec(write=0.05, poweroff=12)
        self.a.create_instance(spec)
        self.a.start_instance(spec.uuid)
        console = self.follow(spec.uuid)
        console.wait_written()
        plan = hands.plan_for(self.a, self.b, spec.uuid, bandwidth_mib=1)
        with self.copying(plan, self.b.pre_live_migration(plan)) as outcome:
            self.assertIsInstance(outcome.wait(self.harness.patience).error, exceptions.AgentError)
        self.assertRaises(exceptions.PreconditionFailed, self.b.post_live_migration_at_destination, plan)
        self.undo(plan)
        self.assert_where(spec.uuid, hands.OFF_AT_A)
        self.assertIn('guest: powers off', console.text())
        disk.read_records(self.harness.first_disk(self.a, spec.uuid)).check(console.last_written())


class Raising:
    """A live_migration in a thread, whose error, of whatever kind, is raised at the end of the block."""

    def __init__(self, case, plan, prepared):
        self._case, self._plan, self._prepared = case, plan, prepared
        self._error = None

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        hands.wait_for(lambda: self._case.a.locate(self._plan.instance_uuid).job_active, 'a running job', 30)

    def _run(self):
        try:
            self._case.a.live_migration(self._plan, self._prepared)
        except Exception as error:  # noqa: BLE001 - raised again in __exit__
            self._error = error

    def __exit__(self, *_):
        self._thread.join(60)
        if self._error:
            raise self._error


class Found(Case, unittest.TestCase):
    """Guests that migrator did not make."""

    def given_found(self, path, more=''):
        """Start a guest past migrator, without a definition, with its disk at `path`; returns its uuid."""
        spec = self.harness.spec(disks=0, write=0.05)
        image = self.harness.outside(self.a, path)
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', image, '48M'], check=True, timeout=30)
        xml = self.lab.folder / 'found.xml'
        xml.write_text(f"""<domain type='qemu'><name>found</name><uuid>{spec.uuid}</uuid><memory unit='MiB'>{spec.memory_mib}</memory>
            <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{spec.kernel}</kernel><initrd>{spec.initrd}</initrd>
            <cmdline>{spec.cmdline}</cmdline></os><cpu mode='custom' match='exact'><model>qemu64</model></cpu>
            <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>
            <target dev='vda' bus='virtio'/></disk><serial type='pty'/>{more}</devices></domain>""")
        self.alpha.virsh('create', str(xml))
        return spec.uuid

    def test_a_found_guest_moves_with_its_disk_and_listens_at_the_destination(self):
        """Given a transient guest with its disk right in a storage directory, it arrives with a definition, and nothing of it stays."""
        path = f'{self.lab.instances}/found.qcow2'
        uuid = self.given_found(path, f"<graphics type='vnc' autoport='yes' listen='{self.alpha.ip}'/>")
        guest = hands.guest_of(self.a, uuid)
        self.assertEqual(('found', False, path), (guest.name, guest.managed, guest.disks[0].path))
        self.assertFalse(self.a.locate(uuid).persistent)
        self.move(self.a, self.b, uuid)
        self.assert_where(uuid, hands.AT_B)
        self.assertTrue(self.b.locate(uuid).persistent)
        for words in ((), ('--inactive',)):
            xml = self.beta.virsh('dumpxml', *words, uuid)
            self.assertIn(self.beta.ip, xml)
            self.assertNotIn(self.alpha.ip, xml)
        names = [sorted(p.name for p in host.instances_outside.iterdir()) for host in (self.alpha, self.beta)]
        self.assertEqual([['.migrator-storage-id'], ['.migrator-storage-id', 'found.qcow2']], names)

    def test_a_failed_move_of_a_found_guest_leaves_nothing_but_itself(self):
        uuid = self.given_found(f'{self.lab.instances}/found.qcow2')
        plan = hands.plan_for(self.a, self.b, uuid, bandwidth_mib=1)
        with self.copying(plan, self.b.pre_live_migration(plan)) as outcome:
            self.a.abort_live_migration(uuid)
            self.assertIsInstance(outcome.wait(60).error, exceptions.MigrationAborted)
        self.undo(plan)
        self.assert_where(uuid, hands.AT_A)
        self.assertEqual(['.migrator-storage-id'], [p.name for p in self.beta.instances_outside.iterdir()])

    def test_what_forbids_a_migration_is_told_in_words(self):
        """Given a disk outside of the storage directories and a block job, the check names both."""
        path = str(self.lab.folder / 'elsewhere.qcow2')
        uuid = self.given_found(path)
        self.addCleanup(lambda: (self.lab.folder / 'elsewhere.qcow2').unlink())
        self.alpha.virsh('blockcopy', uuid, 'vda', f'{self.lab.instances}/copy.qcow2', '--transient-job', '--bandwidth', '1')
        obstacles = self.a.check_can_live_migrate_source(hands.guest_of(self.a, uuid)).obstacles
        self.assertEqual(2, len(obstacles), obstacles)
        self.assertIn(path, obstacles[0])
        self.assertIn('vda', obstacles[1])

    def test_snapshots_forbid_a_migration(self):
        uuid = self.given_stopped_guest()
        self.alpha.virsh('snapshot-create', uuid)
        obstacles = self.a.check_can_live_migrate_source(hands.guest_of(self.a, uuid)).obstacles
        self.assertIn('snapshots', ' '.join(obstacles))

    def test_a_destination_without_the_kernel_or_with_the_name_taken_says_so(self):
        spec = self.harness.spec()
        self.a.create_instance(spec)
        other = dataclasses.replace(self.harness.spec(), name=spec.name)
        self.b.create_instance(other)
        guest = dataclasses.replace(hands.guest_of(self.a, spec.uuid), boot_files=(spec.kernel, '/boot/no-such-kernel'))
        said = self.b.check_can_live_migrate_destination(guest)
        self.assertIn(spec.name, said.occupied)
        self.assertEqual(('/boot/no-such-kernel',), said.boot_files_missing)
