"""Volumes are attached to guests and detached from them: scenarios."""
import dataclasses
import uuid

from migrator import exceptions
from migrator.rpc import volume_facts
from migrator.states import GuestState, PauseReason
from tests.contract import harness as hands
from tests.contract.compute_base import ComputeScenarios

NOBODY = '00000000-0000-4000-8000-000000000000'


class Words(ComputeScenarios):
    """What the scenarios are written in."""

    def attachment(self, instance_uuid, connection=None, **values):
        """Describe a new volume as a disk of a guest; by a new export if none is given."""
        return volume_facts.Attachment(id=str(uuid.uuid4()), volume_id=str(uuid.uuid4()), instance_uuid=instance_uuid,
                                       connection=connection or self.harness.export(), **values)

    def given_attached(self, **kwargs):
        """Run a guest at a and attach a volume to it; returns uuid, attachment and target."""
        uuid_ = self.given_guest(**kwargs)
        attachment = self.attachment(uuid_)
        return uuid_, attachment, self.a.attach_volume(attachment)['target']

    def disks(self, instance_uuid, driver=None):
        """Give {target: Disk} of a guest."""
        return {d.target: d for d in hands.guest_of(driver or self.a, instance_uuid).disks}

    def volumes(self, instance_uuid, driver=None):
        """Give {target: serial} of a guest's network disks."""
        return {t: d.serial for t, d in self.disks(instance_uuid, driver).items() if d.kind == 'network'}

    def assert_same_disks(self, instance_uuid, act, *errors):
        """`act` raises one of `errors`, and the guest has the disks and the state that it had."""
        before = self.disks(instance_uuid), self.a.locate(instance_uuid)
        self.assertRaises(errors, act)
        self.assertEqual(before, (self.disks(instance_uuid), self.a.locate(instance_uuid)))


class Scenarios(Words):
    """attach_volume and detach_volume."""

    def test_a_running_guest_gets_a_volume_and_keeps_it_over_a_restart(self):
        uuid_, attachment, target = self.given_attached()
        disk = self.disks(uuid_)[target]
        self.assertEqual(('network', attachment.connection.uri, attachment.volume_id, False),
                         (disk.kind, disk.path, disk.serial, disk.readonly))
        self.assertEqual(GuestState.RUNNING, self.a.locate(uuid_).state)
        self.a.stop_instance(uuid_, 0)
        self.assertEqual({target: attachment.volume_id}, self.volumes(uuid_))
        self.a.start_instance(uuid_)
        self.assertEqual({target: attachment.volume_id}, self.volumes(uuid_))

    def test_a_second_attach_finds_the_first(self):
        uuid_, attachment, target = self.given_attached()
        self.assertEqual(target, self.a.attach_volume(attachment)['target'])
        self.assertEqual(target, self.a.attach_volume(dataclasses.replace(attachment, target='vdz'))['target'])
        self.assertEqual({target: attachment.volume_id}, self.volumes(uuid_))

    def test_a_guest_that_is_off_has_the_volume_once_it_starts(self):
        uuid_ = self.given_stopped_guest()
        attachment = self.attachment(uuid_)
        target = self.a.attach_volume(attachment)['target']
        self.assertEqual({target: attachment.volume_id}, self.volumes(uuid_))
        self.a.start_instance(uuid_)
        self.assertEqual({target: attachment.volume_id}, self.volumes(uuid_))

    def test_the_target_that_is_asked_for_is_given(self):
        uuid_ = self.given_guest()
        self.assertEqual('vdf', self.a.attach_volume(self.attachment(uuid_, target='vdf'))['target'])

    def test_several_volumes_get_a_target_each(self):
        uuid_, first, _ = self.given_attached()
        second = self.attachment(uuid_)
        self.a.attach_volume(second)
        self.assertEqual(sorted((first.volume_id, second.volume_id)), sorted(self.volumes(uuid_).values()))
        self.a.detach_volume(first)
        self.assertEqual([second.volume_id], list(self.volumes(uuid_).values()))

    def test_a_volume_may_be_given_to_be_read_only(self):
        uuid_ = self.given_guest()
        connection = self.harness.export(writable=False)
        target = self.a.attach_volume(self.attachment(uuid_, connection, read_only=True))['target']
        self.assertTrue(self.disks(uuid_)[target].readonly)

    def test_what_does_not_fit_is_refused(self):
        """A target that another disk has, the same volume by another export or in another mode."""
        uuid_, attachment, target = self.given_attached()
        taken = self.attachment(uuid_, target=next(iter(self.disks(uuid_))))
        moved = dataclasses.replace(attachment, connection=self.harness.export())
        for wrong in (taken, moved, dataclasses.replace(attachment, read_only=True)):
            self.assert_same_disks(uuid_, lambda wrong=wrong: self.a.attach_volume(wrong), exceptions.PreconditionFailed)

    def test_an_export_that_does_not_answer_is_refused(self):
        """Whether the guest runs or not: the one would hang with it, the other would not start."""
        connection = self.harness.export()
        self.harness.set_export(connection, answers=False)
        for uuid_ in (self.given_guest(), self.given_stopped_guest()):
            attachment = self.attachment(uuid_, connection)
            self.assert_same_disks(uuid_, lambda attachment=attachment: self.a.attach_volume(attachment), exceptions.DriverError)

    def test_a_running_guest_lets_go_of_a_volume_for_good(self):
        uuid_, attachment, target = self.given_attached()
        self.a.detach_volume(attachment)
        self.assertEqual({}, self.volumes(uuid_))
        self.a.detach_volume(attachment)
        self.assertEqual(GuestState.RUNNING, self.a.locate(uuid_).state)
        self.a.stop_instance(uuid_, 0)
        self.assertEqual({}, self.volumes(uuid_))
        self.assertEqual({'vda'}, set(self.disks(uuid_)))

    def test_a_volume_is_detached_from_a_guest_that_is_off(self):
        uuid_ = self.given_stopped_guest()
        attachment = self.attachment(uuid_)
        self.a.attach_volume(attachment)
        self.a.detach_volume(attachment)
        self.assertEqual({}, self.volumes(uuid_))
        self.a.start_instance(uuid_)
        self.assertEqual({}, self.volumes(uuid_))

    def test_a_volume_is_detached_by_its_id_alone(self):
        """Given that nobody knows the export any more, and that it is gone."""
        uuid_, attachment, target = self.given_attached()
        self.harness.set_export(attachment.connection, answers=False)
        self.a.stop_instance(uuid_, 0)
        self.a.detach_volume(dataclasses.replace(attachment, connection=None, target='vdz'))
        self.assertEqual({}, self.volumes(uuid_))

    def test_a_detached_volume_can_be_attached_again_and_to_another_guest(self):
        uuid_, attachment, _ = self.given_attached()
        self.a.detach_volume(attachment)
        self.assertIn(self.a.attach_volume(attachment)['target'], self.volumes(uuid_))
        self.a.detach_volume(attachment)
        other = dataclasses.replace(attachment, instance_uuid=self.given_guest())
        self.assertIn(self.a.attach_volume(other)['target'], self.volumes(other.instance_uuid))

    def test_a_guest_that_does_not_let_go_keeps_the_volume(self):
        """Given a guest that is paused and hears nothing, then it can be asked again once it runs."""
        uuid_, attachment, target = self.given_attached()
        self.harness.pause(self.a, uuid_)
        self.assert_same_disks(uuid_, lambda: self.a.detach_volume(attachment), exceptions.DeviceInUse)
        self.harness.resume(self.a, uuid_)
        self.a.detach_volume(attachment)
        self.assertEqual({}, self.volumes(uuid_))

    def test_a_guest_that_is_not_there(self):
        attachment = self.attachment(NOBODY)
        self.assertRaises(exceptions.InstanceNotFound, self.a.attach_volume, attachment)
        self.assertRaises(exceptions.InstanceNotFound, self.a.detach_volume, attachment)

    def test_disks_are_left_alone_while_a_job_runs(self):
        uuid_, attachment, _ = self.given_attached()
        plan = hands.plan_for(self.a, self.b, uuid_, bandwidth_mib=self.harness.slow_mib)
        with self.copying(plan, self.b.pre_live_migration(plan)):
            for act in (self.a.attach_volume, self.a.detach_volume):
                self.assert_same_disks(uuid_, lambda act=act: act(self.attachment(uuid_)), exceptions.PreconditionFailed)
            self.assert_same_disks(uuid_, lambda: self.a.detach_volume(attachment), exceptions.PreconditionFailed)

    def test_a_host_tells_of_volumes_that_do_not_answer_it(self):
        uuid_, attachment, _ = self.given_attached()
        guest = hands.guest_of(self.a, uuid_)
        self.assertEqual((), self.b.check_can_live_migrate_destination(guest).volumes_silent)
        self.harness.set_export(attachment.connection, answers=False)
        (words,) = self.b.check_can_live_migrate_destination(guest).volumes_silent
        self.assertIn(attachment.connection.uri, words)

    def test_an_attached_volume_goes_with_its_guest_and_is_not_copied(self):
        uuid_, attachment, target = self.given_attached()
        plan = self.move(self.a, self.b, uuid_)
        self.assertEqual(('vda',), plan.copy)
        self.assert_where(uuid_, hands.AT_B)
        self.assertEqual({target: attachment.volume_id}, self.volumes(uuid_, self.b))
        self.assertEqual(target, self.b.attach_volume(attachment)['target'])
        self.b.detach_volume(attachment)
        self.assertEqual({}, self.volumes(uuid_, self.b))


class Stalls(Words):
    """Guests that stand still because a volume does not answer."""

    def given_stalled(self):
        """Run a guest at a that writes to a volume, whose array then loses its power; returns uuid and attachment."""
        uuid_, attachment, _ = self.given_attached(busy=True)
        self.harness.set_export(attachment.connection, answers=False)
        hands.wait_for(lambda: self.a.locate(uuid_).reason is PauseReason.IO_ERROR, 'a guest that stands still', self.harness.patience)
        self.assertEqual(GuestState.PAUSED, self.a.locate(uuid_).state)
        return uuid_, attachment

    def test_a_guest_goes_on_once_its_volume_answers(self):
        uuid_, attachment = self.given_stalled()
        self.assertEqual((uuid_,), self.a.stalled())
        self.assertIn(attachment.connection.uri, self.a.resume_stalled(uuid_))
        self.assertEqual((uuid_,), self.a.stalled())
        self.harness.set_export(attachment.connection, answers=True)
        hands.wait_for(lambda: not self.a.resume_stalled(uuid_), 'a guest that goes on', self.harness.patience)
        self.assertEqual(((), GuestState.RUNNING), (self.a.stalled(), self.a.locate(uuid_).state))
        self.assertEqual('', self.a.resume_stalled(uuid_))

    def test_a_guest_that_was_paused_by_a_user_stays_paused(self):
        uuid_, _, _ = self.given_attached()
        self.harness.pause(self.a, uuid_)
        self.assertEqual(((), ''), (self.a.stalled(), self.a.resume_stalled(uuid_)))
        self.assertEqual((GuestState.PAUSED, PauseReason.USER), (self.a.locate(uuid_).state, self.a.locate(uuid_).reason))

    def test_a_guest_that_stands_still_can_be_turned_off_and_relieved_of_the_volume(self):
        uuid_, attachment = self.given_stalled()
        self.a.stop_instance(uuid_, 0)
        self.assertEqual((), self.a.stalled())
        self.a.detach_volume(attachment)
        self.a.start_instance(uuid_)
        self.assertEqual({}, self.volumes(uuid_))

    def test_a_guest_that_is_not_there_does_not_go_on(self):
        self.assertRaises(exceptions.InstanceNotFound, self.a.resume_stalled, NOBODY)
