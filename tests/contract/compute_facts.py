"""What a compute driver says must be well formed, true, and cost nothing: scenarios for the methods without side effects."""
import uuid

from migrator import exceptions
from migrator.rpc import facts
from migrator.states import GuestState, PauseReason
from tests.contract import harness as hands
from tests.contract.compute_base import ComputeScenarios

NOBODY = '00000000-0000-4000-8000-000000000000'


class Scenarios(ComputeScenarios):
    """Facts, inventory, locate, progress and the two checks."""

    def assert_wire(self, value):
        """`value` passes the wire unchanged."""
        self.assertEqual(value, facts.from_wire(type(value), facts.to_wire(value)))

    def test_host_facts_describe_the_host(self):
        said = self.a.host_facts()
        self.assert_wire(said)
        self.assertTrue(said.hypervisor_type)
        self.assertGreater(said.hypervisor_version, 0)
        self.assertGreater(said.cpus, 0)
        self.assertGreaterEqual(said.memory_mib, said.memory_free_mib)
        self.assertGreater(said.memory_free_mib, 0)
        self.assertTrue(said.storage)
        self.assertTrue(all(said.storage.values()), said.storage)

    def test_storage_identity_stays_over_a_restart_of_the_driver(self):
        before = self.a.host_facts().storage
        self.a.stop()
        self.a.start()
        self.assertEqual(before, self.a.host_facts().storage)

    def test_only_the_shared_directory_has_one_identity_at_both_hosts(self):
        there, here = self.a.host_facts().storage, self.b.host_facts().storage
        private, shared = self.harness.spec().disks[0].directory, self.harness.spec(shared=True).disks[0].directory
        self.assertEqual(there[shared], here[shared])
        self.assertNotEqual(there[private], here[private])

    def test_a_restarted_driver_finds_its_guests_running(self):
        uuid_ = self.given_guest()
        self.a.stop()
        self.a.start()
        self.assert_where(uuid_, hands.AT_A)

    def test_inventory_lists_a_guest_where_it_is_and_nowhere_else(self):
        spec = self.harness.spec(disks=2)
        self.a.create_instance(spec)
        guest = hands.guest_of(self.a, spec.uuid)
        self.assert_wire(guest)
        self.assertEqual((spec.name, GuestState.OFF, spec.memory_mib, spec.vcpus, True),
                         (guest.name, guest.state, guest.memory_mib, guest.vcpus, guest.managed))
        self.assertEqual([(d.target, d.size) for d in spec.disks], [(d.target, d.size) for d in guest.disks])
        self.assertTrue(all(d.kind == 'file' and d.path.startswith(d.directory + '/') for d in guest.disks), guest.disks)
        self.assertIsNone(hands.guest_of(self.b, spec.uuid))
        self.a.start_instance(spec.uuid)
        self.assertEqual(GuestState.RUNNING, hands.guest_of(self.a, spec.uuid).state)

    def test_locate_says_absent_off_running_and_paused_with_the_reason(self):
        self.assertEqual(GuestState.ABSENT, self.a.locate(NOBODY).state)
        uuid_ = self.given_stopped_guest()
        self.assertEqual(GuestState.OFF, self.a.locate(uuid_).state)
        self.assertTrue(self.a.locate(uuid_).persistent)
        self.a.start_instance(uuid_)
        said = self.a.locate(uuid_)
        self.assert_wire(said)
        self.assertEqual((GuestState.RUNNING, PauseReason.NONE, False), (said.state, said.reason, said.job_active))
        self.harness.pause(self.a, uuid_)
        said = self.a.locate(uuid_)
        self.assertEqual((GuestState.PAUSED, PauseReason.USER), (said.state, said.reason))

    def test_locate_shows_both_ends_of_a_running_job(self):
        uuid_, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        with self.copying(plan, prepared):
            here = self.a.locate(uuid_)
            self.assertEqual((GuestState.RUNNING, True), (here.state, here.job_active))
            there = hands.wait_for(lambda: self.incoming_at_b(uuid_), 'the incoming guest', self.harness.patience)
            self.assertEqual(GuestState.INCOMING, there.state)

    def incoming_at_b(self, uuid_):
        """b's Location of the guest once it is not absent."""
        said = self.b.locate(uuid_)
        return said if said.state != GuestState.ABSENT else None

    def audited(self, driver, uuid_):
        """(kind, state, migration id) of what a driver's audit has of a guest."""
        found = driver.audit()
        for trace in found:
            self.assert_wire(trace)
        return {(t.kind, t.state, t.migration_id) for t in found if t.instance_uuid == uuid_}

    def test_the_audit_has_a_guest_and_its_files_where_they_are_and_nothing_elsewhere(self):
        uuid_ = self.given_stopped_guest()
        self.assertEqual({('domain', 'off', ''), ('file', '', '')}, self.audited(self.a, uuid_))
        self.assertEqual(set(), self.audited(self.b, uuid_))

    def test_the_audit_tells_the_migration_that_made_what_is_prepared_and_its_job(self):
        uuid_, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        self.assertIn(('file', '', plan.migration_id), self.audited(self.b, uuid_))
        with self.copying(plan, prepared):
            hands.wait_for(lambda: 'job' in {kind for kind, _, _ in self.audited(self.a, uuid_)}, 'the job', self.harness.patience)
            hands.wait_for(lambda: 'incoming' in {state for _, state, _ in self.audited(self.b, uuid_)}, 'the incoming guest',
                           self.harness.patience)

    def test_progress_is_an_empty_job_when_there_is_none(self):
        uuid_ = self.given_guest()
        self.assertEqual(facts.Job(), self.a.progress(uuid_))
        self.assertEqual(facts.Job(), self.a.progress(NOBODY))

    def test_progress_of_a_running_job_counts_up(self):
        uuid_, plan, prepared = self.given_prepared(bandwidth_mib=self.harness.slow_mib)
        with self.copying(plan, prepared):
            first = hands.wait_for(lambda: self.moving(uuid_), 'progress', self.harness.patience)
            self.assert_wire(first)
            done = first.memory_processed + first.disk_processed
            hands.wait_for(lambda: self.a.progress(uuid_).memory_processed + self.a.progress(uuid_).disk_processed > done,
                           'more progress', self.harness.patience)
        self.assertEqual(facts.Job(), self.a.progress(uuid_))

    def moving(self, uuid_):
        """a's Job of the guest once it has copied something."""
        job = self.a.progress(uuid_)
        return job if job.active and job.memory_processed + job.disk_processed else None

    def test_check_at_the_destination_offers_and_changes_nothing(self):
        uuid_ = self.given_guest()
        before = self.picture(uuid_)
        guest = hands.guest_of(self.a, uuid_)
        said = self.b.check_can_live_migrate_destination(guest)
        self.assert_wire(said)
        self.assertEqual(('', ()), (said.occupied, said.files_found))
        self.assertGreater(said.memory_free_mib, guest.memory_mib)
        self.assertTrue(said.connection_uri)
        self.assertTrue(all((said.hypervisor_type, said.hypervisor_version, said.arch, said.machines, said.domain_types)))
        self.assertEqual(self.b.host_facts().storage, said.storage)
        self.assertEqual(set(said.storage), set(said.storage_free))
        self.assertTrue(all(free > 0 for free in said.storage_free.values()), said.storage_free)
        self.assertEqual(before, self.picture(uuid_))

    def test_check_at_the_destination_names_files_that_stand_in_the_way(self):
        spec = self.harness.spec()
        self.a.create_instance(spec)
        self.harness.drop_foreign_file(self.b, spec)
        guest = hands.guest_of(self.a, spec.uuid)
        said = self.b.check_can_live_migrate_destination(guest)
        self.assertTrue(said.occupied or guest.disks[0].path in said.files_found, said)

    def test_check_at_the_destination_names_a_domain_of_the_same_uuid(self):
        spec = self.harness.spec()
        self.a.create_instance(spec)
        self.b.create_instance(spec)
        self.assertTrue(self.b.check_can_live_migrate_destination(hands.guest_of(self.a, spec.uuid)).occupied)

    def test_files_on_shared_storage_do_not_stand_in_the_way(self):
        uuid_ = self.given_guest(shared=True)
        self.assertEqual('', self.b.check_can_live_migrate_destination(hands.guest_of(self.a, uuid_)).occupied)

    def test_check_at_the_source_says_what_the_guest_needs_and_changes_nothing(self):
        uuid_ = self.given_guest()
        before = self.picture(uuid_)
        guest = hands.guest_of(self.a, uuid_)
        said = self.a.check_can_live_migrate_source(guest)
        self.assert_wire(said)
        self.assertEqual((GuestState.RUNNING, False, guest.memory_mib, guest.disks, ()),
                         (said.state, said.job_active, said.memory_mib, said.disks, said.obstacles))
        self.assertTrue(all((said.hypervisor_type, said.hypervisor_version, said.arch, said.machine, said.domain_type)))
        self.assertEqual(before, self.picture(uuid_))

    def test_check_at_the_source_of_a_guest_that_is_not_there(self):
        guest = facts.Guest(uuid=str(uuid.uuid4()), name='nobody')
        self.assertRaises(exceptions.InstanceNotFound, self.a.check_can_live_migrate_source, guest)

    def test_the_two_checks_of_a_good_pair_fit(self):
        uuid_ = self.given_guest()
        guest = hands.guest_of(self.a, uuid_)
        here, there = self.a.check_can_live_migrate_source(guest), self.b.check_can_live_migrate_destination(guest)
        self.assertEqual((here.hypervisor_type, here.arch), (there.hypervisor_type, there.arch))
        self.assertIn(here.machine, there.machines)
        self.assertIn(here.domain_type, there.domain_types)
