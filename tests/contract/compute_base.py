"""The words that the scenarios of the compute contract are written in: a guest at a, its plan, a job under way, what is where."""
import contextlib
import time

from migrator import concurrency, exceptions
from migrator.states import GuestState
from tests.contract import harness as hands


class ComputeScenarios:
    """Set-up and assertions; mixed into a unittest.TestCase that gives `make_harness()`."""

    def make_harness(self) -> hands.ComputeHarness:
        """Make two fresh hosts; closed after the scenario."""
        raise NotImplementedError

    def setUp(self):
        super().setUp()
        self.harness = self.make_harness()
        self.addCleanup(self.harness.close)
        self.a, self.b = self.harness.a, self.harness.b

    def given_stopped_guest(self, **kwargs):
        """Create a guest at a; returns its uuid."""
        spec = self.harness.spec(**kwargs)
        self.a.create_instance(spec)
        return spec.uuid

    def given_guest(self, **kwargs):
        """Create and start a guest at a; returns its uuid."""
        uuid = self.given_stopped_guest(**kwargs)
        self.a.start_instance(uuid)
        return uuid

    def given_prepared(self, bandwidth_mib=0, **kwargs):
        """Run a guest at a and prepare b for it; returns uuid, plan and what pre_live_migration answered."""
        uuid = self.given_guest(**kwargs)
        plan = hands.plan_for(self.a, self.b, uuid, bandwidth_mib=bandwidth_mib)
        return uuid, plan, self.b.pre_live_migration(plan)

    @contextlib.contextmanager
    def copying(self, plan, prepared):
        """Run live_migration from a in the background until the block ends; inside it the job runs. Gives an Outcome."""
        outcome = Outcome(self.a, plan, prepared)
        hands.wait_for(lambda: outcome.ended or self.a.locate(plan.instance_uuid).job_active, 'a running job', self.harness.patience)
        if outcome.ended:
            raise AssertionError(f'the migration ended before it could be looked at: {outcome.result} {outcome.error!r}')
        try:
            yield outcome
        finally:
            if not outcome.ended:
                self.a.abort_live_migration(plan.instance_uuid)
            outcome.wait(self.harness.patience)

    def move(self, source, destination, uuid):
        """Take a guest through all steps of a good migration; returns its plan."""
        plan = hands.plan_for(source, destination, uuid)
        source.live_migration(plan, destination.pre_live_migration(plan))
        destination.post_live_migration_at_destination(plan)
        source.post_live_migration_at_source(plan)
        return plan

    def assert_where(self, uuid, expected):
        """The guest's states at (a, b)."""
        self.assertEqual(expected, hands.where(self.harness, uuid))

    def assert_unchanged(self, uuid, act, *errors):
        """`act` raises one of `errors`, which is returned; no state and no file of the guest differs at either host afterwards."""
        before = self.picture(uuid)
        with self.assertRaises(errors) as raised:
            act()
        self.assertEqual(before, self.picture(uuid))
        return raised.exception

    def assert_idempotent(self, uuid, act):
        """A second `act` succeeds, and changes no state and no file at either host."""
        act()
        before = self.picture(uuid)
        act()
        self.assertEqual(before, self.picture(uuid))

    def await_gone_from_b(self, uuid):
        """Wait until b runs the guest no more: where one went down with the hand-over, its hypervisor may take a moment to notice."""
        deadline = time.monotonic() + self.harness.patience
        while self.b.locate(uuid).state == GuestState.RUNNING:
            self.assertLess(time.monotonic(), deadline, 'the guest runs at b')
            time.sleep(0.05)

    def picture(self, uuid):
        """What both hosts hold of the guest."""
        return [(d.locate(uuid).state, d.locate(uuid).reason, self.harness.files(d, uuid), self.harness.marker(d, uuid))
                for d in (self.a, self.b)]


class Outcome:
    """A live_migration that runs in a native thread of its own, as in an agent; fit for plain and for green tests."""

    def __init__(self, driver, plan, prepared):
        self.result = None
        self.error = None
        self._thread = concurrency.native_thread(self._run, driver, plan, prepared)

    @property
    def ended(self):
        """True once the call has returned or raised."""
        return not self._thread.is_alive()

    def wait(self, seconds):
        """Wait for the end; returns self."""
        hands.wait_for(lambda: self.ended, 'the end of live_migration', seconds)
        return self

    def _run(self, driver, plan, prepared):
        try:
            self.result = driver.live_migration(plan, prepared)
        except exceptions.MigratorError as error:
            self.error = error
