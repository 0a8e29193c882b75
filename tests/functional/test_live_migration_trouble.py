"""Live migrations that do not go as wished: aborted, refused, broken in any step - with real daemons, hosts and guests.

After each: one running guest in the place that the database names, nothing of it on the other host, and the reason in words.
"""
import os
import signal

from migrator import exceptions
from migrator.states import Status
from tests.cloud import DISK
from tests.cloud_case import CloudCase
from tests.functional.libvirt_harness import emulator


class Aborts(CloudCase):
    """The operator changes his mind. One migration per host at a time, so that others queue."""

    arguments = {'options': {'': {'conductor': {'max_migrations_per_host': 1}}}}

    def test_while_copying(self):
        """Given a migration that is copying, when it is aborted, twice, then it is cancelled and the guest goes on where it was."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            for _ in range(2):
                self.assertTrue(self.api.abort(migration['id'])['abort_requested'])
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, here, Status.CANCELLED)
        self.assertIn('aborted on request', ended['error'])
        self.assertIn('tester', [event['user'] for event in ended['events'] if 'abort' in event['reason']])
        again = self.cloud.migrate(guest, there)
        self.assert_outcome(again, guest, there)

    def test_queued(self):
        """Given a migration that waits for a place, when it is aborted, nothing was done; another that waits begins when there is room."""
        guest, here, there = self.standing()
        other = self.cloud.boot(here)
        with self.copying(guest, there) as first:
            queued = self.api.live_migrate(other.uuid, there)
            self.assertEqual(Status.QUEUED, queued['status'], queued)
            self.assertRaises(exceptions.AlreadyMigrating, self.api.live_migrate, other.uuid, there)
            cancelled = self.api.abort(queued['id'])
            self.assertEqual((Status.CANCELLED, ''), (cancelled['status'], self.api.instance_show(other.uuid)['locked_by']))
            self.assert_timeline(cancelled)
            self.assertRaises(exceptions.TooLate, self.api.abort, queued['id'])
            second = self.api.live_migrate(other.uuid, there)
            self.assertEqual(Status.QUEUED, second['status'], second)
            self.api.abort(first['id'])
            self.assertEqual(Status.CANCELLED, self.cloud.ended(first)['status'])
            ended = self.cloud.ended(second)
        self.assert_outcome(ended, other, there)
        self.assertEqual([], self.cloud.settled(guest, here))

    def test_after_the_end(self):
        """Given a migration that has ended, an abort is refused as too late, and so is forcing it; nothing changes."""
        guest, _here, there = self.standing()
        ended = self.cloud.migrate(guest, there)
        self.assertRaises(exceptions.TooLate, self.api.abort, ended['id'])
        self.assertRaises(exceptions.NotPossible, self.api.force_complete, ended['id'])
        self.assert_outcome(self.api.show(ended['id']), guest, there)


class BeforeTheCopy(CloudCase):
    """What is found or fails at the destination before anything moves."""

    arguments = {'database': 'mysql'}

    def refused(self, guest, here, there, words):
        """Ask for a migration that fails; its reason holds `words`, and the destination has nothing of it. Returns it."""
        ended = self.cloud.migrate(guest, there)
        self.assertEqual(Status.FAILED, ended['status'], ended)
        self.assertIn(words, ended['error'])
        self.assertEqual(here, self.api.instance_show(guest.uuid)['host'])
        self.assert_timeline(ended)
        return ended

    def test_a_foreign_file_in_the_way(self):
        """Given a file of that name at the destination, the check refuses, a dry run too, and the file is untouched."""
        guest, here, there = self.standing()
        folder = self.lab.host(there).instances_outside / guest.uuid
        folder.mkdir()
        (folder / 'vda.qcow2').write_text('precious')
        verdict = self.api.live_migrate(guest.uuid, there, options={'dry_run': True})
        self.assertFalse(verdict['possible'])
        self.assertIn('has a file', verdict['reasons'][0])
        ended = self.refused(guest, here, there, 'has a file')
        self.assertNotIn('pre_live_migration', [event['step'] for event in ended['events']])
        self.assertEqual([('vda.qcow2', 'precious')], [(path.name, path.read_text()) for path in folder.iterdir()])
        (folder / 'vda.qcow2').unlink()
        folder.rmdir()
        self.assert_outcome(ended, guest, here, Status.FAILED)

    def test_a_foreign_folder_in_the_way(self):
        """Given somebody's folder at the guest's place, it is refused, and what is in the folder is untouched by the undo too."""
        guest, here, there = self.standing()
        folder = self.lab.host(there).instances_outside / guest.uuid
        folder.mkdir()
        (folder / 'notes').write_text('precious')
        ended = self.refused(guest, here, there, str(self.lab.instances / guest.uuid))
        self.assertEqual([('notes', 'precious')], [(path.name, path.read_text()) for path in folder.iterdir()])
        self.assertFalse((self.lab.host(there).state / 'incoming' / guest.uuid).exists())
        (folder / 'notes').unlink()
        folder.rmdir()
        self.assert_outcome(ended, guest, here, Status.FAILED)

    def test_a_folder_that_cannot_be_written(self):
        """Given storage at the destination that went read-only, preparing fails in words, and nothing is left."""
        guest, here, there = self.standing()
        place = self.lab.host(there)
        place.run(['mount', '-o', 'remount,bind,ro', self.lab.instances])
        try:
            ended = self.refused(guest, here, there, 'Read-only file system')
        finally:
            place.run(['mount', '-o', 'remount,bind,rw', self.lab.instances])
        self.assertIn('pre_live_migration', [event['step'] for event in ended['events']])
        self.assert_outcome(ended, guest, here, Status.FAILED)

    def test_a_disk_that_cannot_be_made(self):
        """Given a destination where the second disk cannot be made, the first one, which was, is removed again."""
        guest, here, there = self.standing()
        place = self.lab.host(there)
        place.run(['mount', '--bind', '/bin/false', '/usr/bin/qemu-img'])
        try:
            ended = self.refused(guest, here, there, 'qemu-img failed')
        finally:
            place.run(['umount', '/usr/bin/qemu-img'])
        self.assertIn('rollback_live_migration_at_destination', [event['step'] for event in ended['events']])
        self.assert_outcome(ended, guest, here, Status.FAILED)
        self.assert_outcome(self.cloud.migrate(guest, there), guest, there)

    def test_a_destination_without_libvirtd(self):
        """Given a destination whose libvirtd is down, the check fails in words and nothing is begun."""
        guest, here, there = self.standing()
        place = self.lab.host(there)
        place.kill_libvirtd()
        ended = self.refused(guest, here, there, there)
        place.start_libvirtd()
        place.wait_ready()
        self.assertNotIn('pre_live_migration', [event['step'] for event in ended['events']])
        self.assert_outcome(ended, guest, here, Status.FAILED)


class InTheCopy(CloudCase):
    """What breaks the hypervisor's call."""

    arguments = {'database': 'mysql'}

    def assert_undone_and_movable(self, ended, guest, here, there, silence=3.0):
        """It failed, with words; the guest goes on where it was, and once all is well again it can be moved."""
        self.assert_outcome(ended, guest, here, Status.FAILED, silence=silence)
        self.assert_outcome(self.cloud.migrate(guest, there), guest, there, silence=silence)

    def test_the_destinations_emulator_is_killed(self):
        """Given a migration that copies, when QEMU dies at the destination, all is undone."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            victim = self.wait_for(lambda: emulator(self.lab.host(there), guest.uuid), 'the incoming emulator')
            os.kill(victim, signal.SIGKILL)
            ended = self.cloud.ended(migration)
        self.assert_undone_and_movable(ended, guest, here, there)

    def test_the_destinations_libvirtd_is_killed(self):
        """Given a migration that copies, when libvirtd dies at the destination and comes back later, all is undone."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            self.lab.host(there).kill_libvirtd()
            self.wait_for(lambda: any(event['what'] == 'observe' for event in self.api.show(migration['id'])['events']), 'an observation')
            self.lab.host(there).start_libvirtd()
            ended = self.cloud.ended(migration)
        self.assert_undone_and_movable(ended, guest, here, there)

    def test_the_migration_stream_finds_no_way(self):
        """Given a destination that names an address at which nobody listens for the stream, the call fails and all is undone."""
        guest, here, there = self.standing()
        with self.cloud.configured(there, libvirt={'live_migration_address': self.lab.svc.ip}):
            ended = self.cloud.migrate(guest, there)
        self.assertIn(self.lab.svc.ip, ended['error'])
        self.assert_undone_and_movable(ended, guest, here, there)

    def test_the_guest_powers_itself_off(self):
        """Given a guest that powers itself off in mid-copy, it is stopped, its disk survives where it was, and it can be started again."""
        guest = self.cloud.boot('alpha', poweroff=8)
        before = (self.lab.host('alpha').instances_outside / guest.uuid / 'vda.qcow2').stat().st_ino
        with self.copying(guest, 'beta', 'File', bandwidth_mib=1) as migration:
            ended = self.cloud.ended(migration)
        self.assertIn('guest: powers off', guest.console.text())
        self.assert_outcome(ended, guest, 'alpha', Status.FAILED, state='stopped')
        self.assertIn('stopped at the source', ended['error'])
        self.assertEqual(before, (self.lab.host('alpha').instances_outside / guest.uuid / 'vda.qcow2').stat().st_ino)
        self.assertRaises(exceptions.InstanceNotRunning, self.api.live_migrate, guest.uuid, 'beta')
        written = guest.console.last_written()
        started = self.cloud.ended(self.api.instance_start(guest.uuid))
        self.assertEqual('completed', started['status'], started)
        self.wait_for(lambda: guest.console.last_written() > written, 'the records go on')

    def test_the_sources_emulator_is_killed(self):
        """Given a guest whose QEMU dies in mid-copy, it is stopped at the source with all that it had written, and nowhere else."""
        guest = self.cloud.boot('beta')
        with self.copying(guest, 'alpha') as migration:
            os.kill(emulator(self.lab.host('beta'), guest.uuid), signal.SIGKILL)
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, 'beta', Status.FAILED, state='stopped')

    def test_a_hung_agent_at_the_source(self):
        """Given an agent that hangs in mid-copy, the migration is proven by what it says when it goes on."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=20) as migration:
            agent = self.cloud.daemons[here]
            agent.pause()
            try:
                self.cloud.wait_for(lambda: self.cloud.where(guest) == {there: 'running'}, 'libvirt has moved it', 60)
            finally:
                agent.resume()
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, there)


class NotConverging(CloudCase):
    """A guest that rewrites its memory faster than it can be copied."""

    def test_forced_to_the_end(self):
        """Given a migration that goes round and round, when it is forced, it completes at the price of downtime, and the guest runs."""
        disk = {'target': 'vda', 'size': DISK, 'directory': str(self.lab.shared)}
        guest = self.cloud.boot('alpha', disks=[disk], memory_mib=240, dirty=64)
        with self.copying(guest, 'beta', bandwidth_mib=10) as migration:
            self.wait_for(lambda: self.api.show(migration['id'])['progress'].get('iteration', 0) >= 2, 'a second round', 90)
            self.assertEqual(Status.RUNNING, self.api.show(migration['id'])['status'])
            self.api.force_complete(migration['id'])
            ended = self.cloud.ended(migration)
        self.assertIn('force_complete', [event['what'] for event in ended['events']])
        self.assert_outcome(ended, guest, 'beta', silence=30.0)

    def test_aborted_by_its_time_limit(self):
        """Given a time limit that a migration cannot keep, it is aborted by itself, and says so."""
        guest, here, there = self.standing()
        with self.cloud.configured('conductor-0', conductor={'completion_timeout': 1}):
            ended = self.cloud.migrate(guest, there, bandwidth_mib=1)
        self.assert_outcome(ended, guest, here, Status.FAILED)
        self.assertIn('time limit', ended['error'])
