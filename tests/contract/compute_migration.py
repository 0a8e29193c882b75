"""Live migration: scenarios for every compute driver, step by step (`Steps`) and as whole moves (`Moves`).

After each: where the guest is, and what lies on the disks of both hosts.
"""
import contextlib
import dataclasses
import uuid as uuids

from migrator import exceptions
from migrator.states import GuestState, PauseReason
from tests.contract import harness as hands
from tests.contract.compute_base import ComputeScenarios
from tests.contract.compute_facts import NOBODY

NOTHING = frozenset()


class Steps(ComputeScenarios):
    """Each step by itself: what it does, twice, and what it refuses."""

    # pre_live_migration

    def test_pre_makes_marked_disks_at_the_destination_only(self):
        uuid, plan, _ = self.given_prepared(disks=2)
        self.assertEqual(('vda', 'vdb'), plan.copy)
        self.assertTrue(self.harness.files(self.b, uuid))
        self.assertEqual(plan.migration_id, self.harness.marker(self.b, uuid))
        self.assertEqual('', self.harness.marker(self.a, uuid))
        self.assert_where(uuid, hands.AT_A)

    def test_pre_twice(self):
        uuid = self.given_guest()
        plan = hands.plan_for(self.a, self.b, uuid)
        self.assert_idempotent(uuid, lambda: self.b.pre_live_migration(plan))
        self.assertEqual(self.b.pre_live_migration(plan), self.b.pre_live_migration(plan))

    def test_pre_does_not_touch_foreign_files(self):
        spec = self.harness.spec()
        self.a.create_instance(spec)
        self.a.start_instance(spec.uuid)
        plan = hands.plan_for(self.a, self.b, spec.uuid)
        self.harness.drop_foreign_file(self.b, spec)
        self.assert_unchanged(spec.uuid, lambda: self.b.pre_live_migration(plan), exceptions.DestinationNotEmpty)

    def test_pre_does_not_touch_what_another_migration_prepared(self):
        uuid, plan, _ = self.given_prepared()
        other = dataclasses.replace(plan, migration_id=str(uuids.uuid4()))
        self.assert_unchanged(uuid, lambda: self.b.pre_live_migration(other), exceptions.DestinationNotEmpty)

    def test_pre_refuses_a_host_that_has_a_domain_of_this_uuid(self):
        spec = self.harness.spec()
        self.a.create_instance(spec)
        self.a.start_instance(spec.uuid)
        plan = hands.plan_for(self.a, self.b, spec.uuid)
        self.b.create_instance(spec)
        self.assert_unchanged(spec.uuid, lambda: self.b.pre_live_migration(plan), exceptions.DestinationNotEmpty)

    def test_pre_on_shared_storage_makes_no_disk_and_leaves_the_guests_alone(self):
        uuid = self.given_guest(shared=True)
        before = self.harness.files(self.a, uuid)
        plan = hands.plan_for(self.a, self.b, uuid)
        self.assertEqual((), plan.copy)
        self.b.pre_live_migration(plan)
        self.assertLessEqual(before, self.harness.files(self.a, uuid))
        self.b.rollback_live_migration_at_destination(plan)
        self.assertEqual(before, self.harness.files(self.a, uuid))

    # rollback_live_migration_at_destination

    def test_rollback_at_destination_removes_what_pre_made_twice(self):
        uuid, plan, _ = self.given_prepared()
        before = self.harness.files(self.a, uuid)
        self.assert_idempotent(uuid, lambda: self.b.rollback_live_migration_at_destination(plan))
        self.assertEqual(NOTHING, self.harness.files(self.b, uuid))
        self.assertEqual(before, self.harness.files(self.a, uuid))
        self.assert_where(uuid, hands.AT_A)

    def test_rollback_at_destination_with_nothing_there_succeeds(self):
        uuid = self.given_guest()
        plan = hands.plan_for(self.a, self.b, uuid)
        self.assert_idempotent(uuid, lambda: self.b.rollback_live_migration_at_destination(plan))
        self.assert_where(uuid, hands.AT_A)

    def test_rollback_at_destination_leaves_foreign_files(self):
        spec = self.harness.spec()
        self.a.create_instance(spec)
        plan = hands.plan_for(self.a, self.b, spec.uuid)
        self.harness.drop_foreign_file(self.b, spec)
        before = self.picture(spec.uuid)
        self.b.rollback_live_migration_at_destination(plan)
        self.assertEqual(before, self.picture(spec.uuid))

    def test_rollback_at_destination_leaves_what_another_migration_prepared(self):
        uuid, plan, _ = self.given_prepared()
        before = self.picture(uuid)
        self.b.rollback_live_migration_at_destination(dataclasses.replace(plan, migration_id=str(uuids.uuid4())))
        self.assertEqual(before, self.picture(uuid))

    def test_rollback_at_destination_is_refused_once_the_guest_runs_there(self):
        uuid, plan, prepared = self.given_prepared()
        self.a.live_migration(plan, prepared)
        self.assert_unchanged(uuid, lambda: self.b.rollback_live_migration_at_destination(plan), exceptions.PreconditionFailed)
        self.assert_where(uuid, hands.AT_B)

    def test_rollback_at_destination_is_refused_for_a_guest_that_ran_there_and_is_off(self):
        uuid, plan, prepared = self.given_prepared()
        self.a.live_migration(plan, prepared)
        self.harness.power_off(self.b, uuid)
        self.assert_unchanged(uuid, lambda: self.b.rollback_live_migration_at_destination(plan), exceptions.PreconditionFailed)

    # rollback_live_migration_at_source

    def test_rollback_at_source_lets_a_running_guest_run(self):
        uuid, plan, _ = self.given_prepared()
        self.assert_idempotent(uuid, lambda: self.a.rollback_live_migration_at_source(plan))
        self.assert_where(uuid, hands.AT_A)

    def test_rollback_at_source_resumes_a_guest_that_the_hand_over_left_paused(self):
        uuid, plan, _ = self.given_prepared()
        self.harness.pause_by_migration(self.a, uuid)
        said = self.a.locate(uuid)
        self.assertEqual((GuestState.PAUSED, PauseReason.MIGRATION), (said.state, said.reason))
        self.assert_idempotent(uuid, lambda: self.a.rollback_live_migration_at_source(plan))
        self.assert_where(uuid, hands.AT_A)

    def test_rollback_at_source_leaves_a_guest_paused_that_a_user_paused(self):
        uuid, plan, _ = self.given_prepared()
        self.harness.pause(self.a, uuid)
        before = self.picture(uuid)
        self.a.rollback_live_migration_at_source(plan)
        self.assertEqual(before, self.picture(uuid))

    def test_rollback_at_source_leaves_a_guest_off_that_is_off(self):
        uuid, plan, _ = self.given_prepared()
        self.harness.power_off(self.a, uuid)
        self.assert_idempotent(uuid, lambda: self.a.rollback_live_migration_at_source(plan))
        self.assert_where(uuid, hands.OFF_AT_A)

    def test_rollback_at_source_of_a_guest_that_is_not_there_is_refused(self):
        uuid, plan, prepared = self.given_prepared()
        self.a.live_migration(plan, prepared)
        self.assert_unchanged(uuid, lambda: self.a.rollback_live_migration_at_source(plan), exceptions.PreconditionFailed)
        self.assert_where(uuid, hands.AT_B)

    # post_live_migration_at_destination

    def test_post_at_destination_makes_the_guest_permanent_twice(self):
        uuid, plan, prepared = self.given_prepared()
        self.a.live_migration(plan, prepared)
        self.assert_idempotent(uuid, lambda: self.b.post_live_migration_at_destination(plan))
        self.assertTrue(self.b.locate(uuid).persistent)
        self.assertEqual('', self.harness.marker(self.b, uuid))
        self.assert_where(uuid, hands.AT_B)

    def test_post_at_destination_is_refused_while_the_guest_is_not_there(self):
        uuid, plan, _ = self.given_prepared()
        self.assert_unchanged(uuid, lambda: self.b.post_live_migration_at_destination(plan), exceptions.PreconditionFailed)

    # post_live_migration_at_source

    def test_post_at_source_removes_the_copied_disks_there_twice(self):
        uuid, plan, prepared = self.given_prepared()
        self.a.live_migration(plan, prepared)
        at_b = self.harness.files(self.b, uuid)
        self.assert_idempotent(uuid, lambda: self.a.post_live_migration_at_source(plan))
        self.assertEqual(NOTHING, self.harness.files(self.a, uuid))
        self.assertEqual(at_b, self.harness.files(self.b, uuid))
        self.assert_where(uuid, hands.AT_B)

    def test_post_at_source_is_refused_while_the_guest_runs_there(self):
        uuid, plan, _ = self.given_prepared()
        self.assert_unchanged(uuid, lambda: self.a.post_live_migration_at_source(plan), exceptions.PreconditionFailed)
        self.assert_where(uuid, hands.AT_A)

    def test_post_at_source_is_refused_while_a_job_runs(self):
        uuid, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        files = self.harness.files(self.a, uuid)
        with self.copying(plan, prepared):
            self.assertRaises(exceptions.PreconditionFailed, self.a.post_live_migration_at_source, plan)
            self.assertEqual(files, self.harness.files(self.a, uuid))
            self.assertEqual(GuestState.RUNNING, self.a.locate(uuid).state)

    def test_post_at_source_is_refused_for_a_guest_that_a_user_paused_there(self):
        uuid, plan, _ = self.given_prepared()
        self.harness.pause(self.a, uuid)
        self.assert_unchanged(uuid, lambda: self.a.post_live_migration_at_source(plan), exceptions.PreconditionFailed)

    def test_post_at_source_never_removes_shared_disks(self):
        uuid, plan, prepared = self.given_prepared(shared=True)
        disks = self.harness.files(self.a, uuid)
        self.a.live_migration(plan, prepared)
        self.b.post_live_migration_at_destination(plan)
        self.a.post_live_migration_at_source(plan)
        self.assertEqual(disks, self.harness.files(self.b, uuid))
        self.assert_where(uuid, hands.AT_B)


class Moves(ComputeScenarios):
    """live_migration, abort and force-complete."""

    def test_live_migration_moves_the_running_guest_and_tells_how_long(self):
        uuid, plan, prepared = self.given_prepared()
        result = self.a.live_migration(plan, prepared)
        self.assert_where(uuid, hands.AT_B)
        for key in ('downtime_ms', 'elapsed_ms', 'memory_processed', 'disk_processed', 'iteration'):
            self.assertIsInstance(result[key], int, key)
        self.assertGreater(result['memory_processed'], 0)

    def test_a_moved_guest_keeps_its_size_name_and_disks(self):
        uuid = self.given_guest(disks=2)
        before = hands.guest_of(self.a, uuid)
        self.move(self.a, self.b, uuid)
        self.assertEqual(before, hands.guest_of(self.b, uuid))
        self.assertIsNone(hands.guest_of(self.a, uuid))

    def test_a_copied_disk_holds_what_the_source_held(self):
        uuid = self.given_stopped_guest()
        self.harness.stamp(self.a, uuid, 'moved')
        self.a.start_instance(uuid)
        self.move(self.a, self.b, uuid)
        self.b.stop_instance(uuid, 0)
        self.assertEqual('moved', self.harness.stamped(self.b, uuid))

    def test_there_and_back_over_shared_storage(self):
        uuid = self.given_stopped_guest(shared=True)
        self.harness.stamp(self.a, uuid, 'shared')
        self.a.start_instance(uuid)
        disks = self.harness.files(self.a, uuid)
        self.move(self.a, self.b, uuid)
        self.assert_where(uuid, hands.AT_B)
        self.move(self.b, self.a, uuid)
        self.assert_where(uuid, hands.AT_A)
        self.assertEqual(disks, self.harness.files(self.a, uuid))
        self.a.stop_instance(uuid, 0)
        self.assertEqual('shared', self.harness.stamped(self.a, uuid))

    def test_there_and_back_with_a_copied_disk(self):
        uuid = self.given_guest()
        self.move(self.a, self.b, uuid)
        self.move(self.b, self.a, uuid)
        self.assert_where(uuid, hands.AT_A)
        self.assertEqual(NOTHING, self.harness.files(self.b, uuid))

    def test_a_moved_guest_can_be_stopped_started_and_deleted(self):
        uuid = self.given_guest()
        self.move(self.a, self.b, uuid)
        self.b.stop_instance(uuid, 0)
        self.b.start_instance(uuid)
        self.assert_where(uuid, hands.AT_B)
        self.b.stop_instance(uuid, 0)
        self.b.delete_instance(uuid)
        self.assert_where(uuid, hands.NOWHERE)
        self.assertEqual((NOTHING, NOTHING), (self.harness.files(self.a, uuid), self.harness.files(self.b, uuid)))

    def test_a_guest_without_disks_moves(self):
        uuid = self.given_guest(disks=0)
        self.move(self.a, self.b, uuid)
        self.assert_where(uuid, hands.AT_B)

    def test_live_migration_twice_leaves_one_guest(self):
        uuid, plan, prepared = self.given_prepared()
        self.a.live_migration(plan, prepared)
        before = self.picture(uuid)
        with contextlib.suppress(exceptions.AgentError, exceptions.InstanceNotFound):  # it may say that the guest has left
            self.a.live_migration(plan, prepared)
        self.assertEqual(before, self.picture(uuid))
        self.assert_where(uuid, hands.AT_B)

    def test_live_migration_to_a_host_that_was_not_prepared_fails_and_the_guest_goes_on(self):
        uuid = self.given_guest()
        plan = hands.plan_for(self.a, self.b, uuid)
        self.assertRaises(exceptions.AgentError, self.a.live_migration, plan, {})
        self.b.rollback_live_migration_at_destination(plan)
        self.a.rollback_live_migration_at_source(plan)
        self.assert_where(uuid, hands.AT_A)
        self.assertEqual(NOTHING, self.harness.files(self.b, uuid))

    def test_live_migration_of_a_guest_that_is_off_fails(self):
        uuid, plan, prepared = self.given_prepared()
        self.harness.power_off(self.a, uuid)
        self.assertRaises((exceptions.AgentError, exceptions.InstanceNotFound), self.a.live_migration, plan, prepared)
        self.assert_where(uuid, hands.OFF_AT_A)

    def test_abort_while_copying_leaves_the_guest_at_the_source(self):
        uuid, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        with self.copying(plan, prepared) as outcome:
            self.assertTrue(self.a.abort_live_migration(uuid))
            outcome.wait(self.harness.patience)
        self.assertIsInstance(outcome.error, exceptions.MigrationAborted)
        self.assertFalse(self.a.abort_live_migration(uuid))
        self.b.rollback_live_migration_at_destination(plan)
        self.a.rollback_live_migration_at_source(plan)
        self.assert_where(uuid, hands.AT_A)
        self.assertFalse(self.a.locate(uuid).job_active)
        self.assertEqual(NOTHING, self.harness.files(self.b, uuid))

    def test_an_aborted_guest_can_move_later(self):
        uuid, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        with self.copying(plan, prepared) as outcome:
            self.a.abort_live_migration(uuid)
            outcome.wait(self.harness.patience)
        self.b.rollback_live_migration_at_destination(plan)
        self.move(self.a, self.b, uuid)
        self.assert_where(uuid, hands.AT_B)

    def test_abort_and_force_complete_without_a_job_say_so(self):
        uuid = self.given_guest()
        for unknown_or_idle in (uuid, NOBODY):
            self.assertIs(False, self.a.abort_live_migration(unknown_or_idle))
            self.assertIs(False, self.a.force_complete_live_migration(unknown_or_idle))
        self.assert_where(uuid, hands.AT_A)

    def test_force_complete_makes_a_restless_guest_arrive_running(self):
        uuid, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.restless_mib, restless=True)
        with self.copying(plan, prepared) as outcome:
            self.assertTrue(self.a.force_complete_live_migration(uuid))
            outcome.wait(self.harness.patience)
        self.assertIsNone(outcome.error)
        self.assert_where(uuid, hands.AT_B)

    def test_abort_after_force_complete_leaves_a_guest_that_rollback_lets_go_on(self):
        uuid, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        with self.copying(plan, prepared) as outcome:
            self.assertTrue(self.a.force_complete_live_migration(uuid))
            self.assertTrue(self.a.abort_live_migration(uuid))
            outcome.wait(self.harness.patience)
        self.assertIsInstance(outcome.error, exceptions.MigrationAborted)
        self.b.rollback_live_migration_at_destination(plan)
        self.a.rollback_live_migration_at_source(plan)
        self.assert_where(uuid, hands.AT_A)

    def test_a_guest_that_powers_itself_off_while_copying_keeps_its_disks(self):
        uuid, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        files = self.harness.files(self.a, uuid)
        with self.copying(plan, prepared) as outcome:
            self.harness.power_off(self.a, uuid)
            outcome.wait(self.harness.patience)
        self.assertIsInstance(outcome.error, exceptions.AgentError)
        self.await_gone_from_b(uuid)
        self.b.rollback_live_migration_at_destination(plan)
        self.a.rollback_live_migration_at_source(plan)
        self.assert_where(uuid, hands.OFF_AT_A)
        self.assertEqual((files, NOTHING), (self.harness.files(self.a, uuid), self.harness.files(self.b, uuid)))
        self.a.start_instance(uuid)
        self.assert_where(uuid, hands.AT_A)
