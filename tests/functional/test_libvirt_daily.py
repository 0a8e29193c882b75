"""What happens to a libvirt host on any day: libvirtd comes and goes, names collide, guests are asked to stop."""
import dataclasses
import signal
import unittest

from migrator import exceptions
from migrator.rpc import facts
from migrator.states import GuestState
from tests.contract import harness as hands
from tests.functional.test_libvirt_migration import Case
from tests.lab import processes


class Daily(Case, unittest.TestCase):
    """libvirtd comes and goes, names collide, guests are asked to stop."""

    def test_a_restarted_libvirtd_is_found_again(self):
        """Given libvirtd killed and started again, the driver goes on; in between it says that it cannot know."""
        uuid = self.given_guest()
        self.alpha.kill_libvirtd()
        for call in (lambda: self.a.locate(uuid), self.a.host_facts, self.a.inventory):
            self.assertRaises(exceptions.DriverError, call)
        self.assertEqual(facts.Job(), self.a.progress(uuid))
        self.alpha.start_libvirtd()
        self.alpha.wait_ready()
        self.assert_where(uuid, hands.AT_A)

    def test_a_libvirtd_that_hangs_is_given_up(self):
        """Given a libvirtd that does not answer, a question ends in DriverError and not never."""
        uuid = self.given_guest()
        frozen = self.alpha.libvirtd_pid
        processes.send(frozen, signal.SIGSTOP)
        try:
            self.assertRaises(exceptions.DriverError, self.a.locate, uuid)
        finally:
            processes.send(frozen, signal.SIGCONT)
        self.assertEqual(GuestState.RUNNING, self.a.locate(uuid).state)

    def test_a_guest_that_listens_shuts_itself_down(self):
        uuid = self.given_guest()
        console = self.follow(uuid)
        console.wait_ticks()
        self.assertEqual({'cut': False}, self.a.stop_instance(uuid, 30))
        self.assertIn('power button', console.text())

    def test_a_taken_name_is_made_unique(self):
        first = self.harness.spec()
        second = dataclasses.replace(self.harness.spec(), name=first.name)
        self.a.create_instance(first)
        self.a.create_instance(second)
        self.assertEqual(f'{first.name}-{second.uuid[:8]}', hands.guest_of(self.a, second.uuid).name)

    def test_creation_that_cannot_be_done_leaves_nothing(self):
        """Given what is asked for in vain, an error says why, and neither a file nor a domain is there."""
        good = self.harness.spec()
        disk_ = good.disks[0]
        for bad in (dataclasses.replace(good, kernel='/boot/no-such-kernel'), dataclasses.replace(good, kernel='/boot/grub'),
                    dataclasses.replace(good, disks=(disk_, disk_)),
                    dataclasses.replace(good, disks=(dataclasses.replace(disk_, backing='/etc/passwd'),)),
                    dataclasses.replace(good, disks=(dataclasses.replace(disk_, size=0),)),
                    dataclasses.replace(good, disks=(dataclasses.replace(disk_, format='vmdk'),)),
                    dataclasses.replace(good, disks=(facts.NewDisk(target='vda', uri='http://a/b'),)),
                    dataclasses.replace(good, disks=(disk_, dataclasses.replace(disk_, target='vdb', size=2 ** 50, format='raw',
                                                                                directory=str(self.lab.shared))))):
            with self.subTest(bad):
                self.assert_unchanged(good.uuid, lambda bad=bad: self.a.create_instance(bad), exceptions.InvalidRequest,
                                      exceptions.DriverError)

    def test_a_link_out_of_the_boot_directories_is_refused(self):
        """Given a symbolic link among the boot files to elsewhere, it is refused, whether or not a file is there."""
        good = self.harness.spec()
        for number, target in enumerate(('/etc/hostname', '/etc/no-such-file')):
            link = self.lab.initrd.with_name(f'link-{number}')
            link.symlink_to(target)
            self.addCleanup(link.unlink)
            for bad in (dataclasses.replace(good, kernel=str(link)), dataclasses.replace(good, initrd=str(link))):
                error = self.assert_unchanged(good.uuid, lambda bad=bad: self.a.create_instance(bad), exceptions.InvalidRequest)
                self.assertIn('guests may be booted', str(error))

    def test_statistics_are_plausible(self):
        """Given a migration of a booted guest, its result tells a downtime, a duration and what was copied."""
        uuid, plan, prepared = self.given_prepared()
        result = self.a.live_migration(plan, prepared)
        self.assertLess(0, result['downtime_ms'])
        self.assertLess(result['downtime_ms'], result['elapsed_ms'])
        self.assertLess(10 << 20, result['memory_processed'])
        self.assertGreaterEqual(result['iteration'], 1)
        kept = self.b.post_live_migration_at_destination(plan)
        self.assertEqual(result['downtime_ms'], kept['downtime_ms'])
        self.assertEqual(kept, self.b.post_live_migration_at_destination(plan))
