"""Making, starting, stopping and deleting guests: scenarios for every compute driver."""
import contextlib
import dataclasses

from migrator import exceptions
from migrator.states import GuestState
from tests.contract import harness as hands
from tests.contract.compute_base import ComputeScenarios
from tests.contract.compute_facts import NOBODY

REFUSED = (exceptions.InvalidRequest, exceptions.DriverError, exceptions.PreconditionFailed)


class Scenarios(ComputeScenarios):
    """create, start, stop and delete."""

    def test_create_makes_a_guest_that_is_off(self):
        uuid = self.given_stopped_guest(disks=2)
        self.assert_where(uuid, hands.OFF_AT_A)
        self.assertTrue(self.harness.files(self.a, uuid))
        self.assertEqual(frozenset(), self.harness.files(self.b, uuid))

    def test_create_twice_keeps_what_the_first_made(self):
        spec = self.harness.spec()
        self.a.create_instance(spec)
        self.harness.stamp(self.a, spec.uuid, 'kept')
        self.assert_idempotent(spec.uuid, lambda: self.a.create_instance(spec))
        self.assertEqual('kept', self.harness.stamped(self.a, spec.uuid))

    def test_create_does_not_touch_files_that_it_did_not_make(self):
        spec = self.harness.spec()
        self.harness.drop_foreign_file(self.a, spec)
        self.assert_unchanged(spec.uuid, lambda: self.a.create_instance(spec), exceptions.DestinationNotEmpty)

    def test_create_in_a_directory_that_is_not_configured_is_refused(self):
        spec = self.harness.spec()
        bad = dataclasses.replace(spec, disks=(dataclasses.replace(spec.disks[0], directory='/nowhere'),))
        self.assert_unchanged(spec.uuid, lambda: self.a.create_instance(bad), *REFUSED)

    def test_create_with_a_backing_file_that_is_not_there_is_refused_and_leaves_nothing(self):
        spec = self.harness.spec()
        disk = dataclasses.replace(spec.disks[0], backing=f'{spec.disks[0].directory}/no-such-image.raw')
        self.assert_unchanged(spec.uuid, lambda: self.a.create_instance(dataclasses.replace(spec, disks=(disk,))), *REFUSED)

    def test_create_with_boot_files_from_elsewhere_is_refused_and_leaves_nothing(self):
        """Given files of the host that are in none of the directories for boot files, they are refused."""
        spec = self.harness.spec()
        kernel, directory = self.harness.kernel, self.harness.kernel.rpartition('/')[0]
        for bad in ({'kernel': '/etc/hostname'}, {'kernel': f'{directory}-2/vmlinuz'}, {'kernel': directory},
                    {'kernel': kernel, 'initrd': '/etc/hostname'}, {'kernel': '', 'initrd': kernel}):
            bad = dataclasses.replace(spec, **{'kernel': '', 'initrd': '', **bad})
            with self.subTest(bad):
                error = self.assert_unchanged(spec.uuid, lambda bad=bad: self.a.create_instance(bad), exceptions.InvalidRequest)
                self.assertIn('needs a kernel' if not bad.kernel else 'guests may be booted', str(error))
        self.a.create_instance(dataclasses.replace(spec, kernel=kernel, initrd=''))

    def test_start_twice(self):
        uuid = self.given_stopped_guest()
        self.assert_idempotent(uuid, lambda: self.a.start_instance(uuid))
        self.assert_where(uuid, hands.AT_A)

    def test_start_of_a_guest_that_is_not_there(self):
        self.assert_unchanged(NOBODY, lambda: self.a.start_instance(NOBODY), exceptions.InstanceNotFound)

    def test_stop_twice(self):
        uuid = self.given_guest()
        self.assert_idempotent(uuid, lambda: self.a.stop_instance(uuid, 0))
        self.assert_where(uuid, hands.OFF_AT_A)

    def test_stop_cuts_the_power_of_a_guest_that_does_not_listen_in_time(self):
        uuid = self.given_guest()
        self.a.stop_instance(uuid, 1)
        self.assert_where(uuid, hands.OFF_AT_A)

    def test_stop_of_a_guest_that_is_not_there(self):
        self.assert_unchanged(NOBODY, lambda: self.a.stop_instance(NOBODY, 0), exceptions.InstanceNotFound)

    def test_stop_is_refused_while_a_job_runs(self):
        uuid, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        with self.copying(plan, prepared):
            self.assertRaises(exceptions.PreconditionFailed, self.a.stop_instance, uuid, 0)
            self.assertEqual(GuestState.RUNNING, self.a.locate(uuid).state)

    def test_a_disk_keeps_its_content_from_stop_to_start(self):
        uuid = self.given_stopped_guest()
        self.harness.stamp(self.a, uuid, 'kept')
        self.a.start_instance(uuid)
        self.a.stop_instance(uuid, 0)
        self.assertEqual('kept', self.harness.stamped(self.a, uuid))

    def test_delete_twice_leaves_nothing(self):
        uuid = self.given_stopped_guest(disks=2)
        self.a.delete_instance(uuid)
        self.assert_idempotent(uuid, lambda: self.a.delete_instance(uuid))
        self.assert_where(uuid, hands.NOWHERE)
        self.assertEqual(frozenset(), self.harness.files(self.a, uuid))

    def test_delete_of_a_running_guest_is_refused(self):
        uuid = self.given_guest()
        self.assert_unchanged(uuid, lambda: self.a.delete_instance(uuid), exceptions.PreconditionFailed)

    def test_delete_does_not_touch_files_that_no_driver_made(self):
        spec = self.harness.spec()
        self.harness.drop_foreign_file(self.a, spec)
        before = self.picture(spec.uuid)
        self.a.delete_instance(spec.uuid)
        self.assertEqual(before, self.picture(spec.uuid))

    def test_delete_does_not_touch_what_a_migration_prepared(self):
        uuid, plan, _ = self.given_prepared()
        before = self.picture(uuid)
        with contextlib.suppress(exceptions.PreconditionFailed):  # allowed too: what counts is what is there afterwards
            self.b.delete_instance(uuid)
        self.assertEqual(before, self.picture(uuid))
        self.b.rollback_live_migration_at_destination(plan)

    def given_carried(self):
        """Create a guest on shared storage at a, and bring it to b past the drivers, where it runs; returns its uuid."""
        uuid = self.given_stopped_guest(shared=True)
        self.harness.carry(uuid)
        self.assert_where(uuid, hands.AT_B)
        return uuid

    def test_delete_where_the_guest_is_not_spares_disks_that_another_host_uses(self):
        """Given a guest that was moved by hand, when the host that made it is told to delete it, its disks stay under it."""
        uuid = self.given_carried()
        files = self.harness.files(self.b, uuid)
        with contextlib.suppress(exceptions.PreconditionFailed):  # either answer is good: what counts is what is there afterwards
            self.a.delete_instance(uuid)
        self.assertEqual(files, self.harness.files(self.b, uuid))
        self.assert_where(uuid, hands.AT_B)

    def test_a_guest_that_was_moved_by_hand_is_deleted_with_its_disks(self):
        uuid = self.given_carried()
        self.b.stop_instance(uuid, 0)
        self.b.delete_instance(uuid)
        self.assert_where(uuid, hands.NOWHERE)
        self.assertEqual(frozenset(), self.harness.files(self.b, uuid))

    def test_a_guest_that_was_moved_by_hand_can_be_migrated_back(self):
        uuid = self.given_carried()
        self.assertEqual('', self.a.check_can_live_migrate_destination(hands.guest_of(self.b, uuid)).occupied)
        self.move(self.b, self.a, uuid)
        self.assert_where(uuid, hands.AT_A)
        self.a.stop_instance(uuid, 0)
        self.a.delete_instance(uuid)
        self.assertEqual(frozenset(), self.harness.files(self.a, uuid))

    def test_a_guest_can_be_made_again_after_its_deletion(self):
        spec = self.harness.spec()
        self.a.create_instance(spec)
        self.a.delete_instance(spec.uuid)
        self.a.create_instance(spec)
        self.assert_where(spec.uuid, hands.OFF_AT_A)
