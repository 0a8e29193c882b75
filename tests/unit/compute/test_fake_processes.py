"""Simulated hypervisors outlive their agents: processes that share a world, are killed at every point, and run under eventlet."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

from migrator.rpc import facts
from migrator.states import GuestState
from tests.contract import harness as hands
from tests.contract.fake import FakeHarness

AGENT = textwrap.dedent("""
    import json, sys
    from migrator import concurrency
    concurrency.setup(sys.argv[4] if len(sys.argv) > 4 else 'threading')
    from migrator.compute.drivers.fake.driver import FakeDriver
    from migrator.rpc import facts
    from tests.contract.fake import fake_conf
    driver = FakeDriver(fake_conf(sys.argv[1]), 'alpha')
    driver.start()
    plan = facts.from_wire(facts.Plan, json.loads(sys.argv[2]))
    print('begin', flush=True)
    print(concurrency.run_native(getattr(driver, sys.argv[3]), plan, *([{}] if sys.argv[3] == 'live_migration' else [])), flush=True)
""")

GREEN = textwrap.dedent("""
    import sys
    from migrator import concurrency
    assert concurrency.setup('eventlet') == 'eventlet'
    import time
    from tests.contract import harness as hands
    from tests.contract.fake import FakeHarness
    harness = FakeHarness(sys.argv[1], migration_seconds=0.5)
    plans = []
    for _ in range(10):
        spec = harness.spec()
        for act, arg in ((harness.a.create_instance, spec), (harness.a.start_instance, spec.uuid)):
            concurrency.run_native(act, arg)
        plan = concurrency.run_native(hands.plan_for, harness.a, harness.b, spec.uuid)
        plans.append((plan, concurrency.run_native(harness.b.pre_live_migration, plan)))
    ticks, stop = [], []
    def tick():
        while not stop:
            ticks.append(1)
            time.sleep(0.02)
    ticker = concurrency.spawn(tick)
    began = time.monotonic()
    handles = [concurrency.spawn(concurrency.run_native, harness.a.live_migration, plan, prepared) for plan, prepared in plans]
    results = [handle.wait(20) for handle in handles]
    stop.append(1)
    assert time.monotonic() - began < 3, 'ten migrations did not run side by side'
    assert len(ticks) > 10, 'the hub stood still'
    assert not harness.world.check(), harness.world.check()
    print(len(results))
""")


class TestProcesses(unittest.TestCase):
    """A guest at alpha, prepared at beta, in a world that lies in a file; the agent of alpha is another process."""

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.harness = FakeHarness(os.path.join(directory.name, 'world.db'), migration_seconds=3.0)
        self.addCleanup(self.harness.world.forget)
        self.addCleanup(self.harness.close)
        self.world, self.a, self.b = self.harness.world, self.harness.a, self.harness.b
        spec = self.harness.spec()
        self.uuid = spec.uuid
        self.a.create_instance(spec)
        self.a.start_instance(self.uuid)
        self.plan = hands.plan_for(self.a, self.b, self.uuid)
        self.b.pre_live_migration(self.plan)

    def agent(self, method):
        """Start alpha's agent in a process of its own, which calls `method`; returns its Popen, killed after the test."""
        process = subprocess.Popen([sys.executable, '-c', AGENT, self.harness.name, json.dumps(facts.to_wire(self.plan)), method],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.kill)
        return process

    def arrived(self):
        """True when beta runs the guest and alpha knows it no longer."""
        return self.world.where(self.uuid) == {'beta': GuestState.RUNNING}

    def test_a_job_goes_on_when_its_agent_is_killed(self):
        process = self.agent('live_migration')
        hands.wait_for(lambda: self.b.locate(self.uuid).job_active, 'the job', 20)
        os.kill(process.pid, signal.SIGKILL)
        self.assertEqual(-signal.SIGKILL, process.wait(20))
        self.assertEqual({'alpha': GuestState.RUNNING, 'beta': GuestState.INCOMING}, self.world.where(self.uuid))
        hands.wait_for(self.arrived, 'the guest at beta', 20)
        self.assertEqual(['completed'], [c.result for c in self.world.history(self.uuid, 'live_migration')])
        self.assertEqual([], self.world.check())

    def test_an_abort_by_another_process_ends_the_call(self):
        process = self.agent('live_migration')
        hands.wait_for(lambda: self.b.locate(self.uuid).job_active, 'the job', 20)
        self.assertTrue(self.a.abort_live_migration(self.uuid))
        _, said = process.communicate(timeout=20)
        self.assertIn('MigrationAborted', said)
        self.assertEqual(1, process.returncode)
        self.assertEqual({'alpha': GuestState.RUNNING}, self.world.where(self.uuid))

    def test_the_outcome_reaches_the_process_that_waits(self):
        process = self.agent('live_migration')
        out, _ = process.communicate(timeout=20)
        self.assertIn('downtime_ms', out)
        self.assertTrue(self.arrived())

    def test_die_before_leaves_everything_as_it_was(self):
        self.world.inject('alpha', 'live_migration', 'die-before')
        self.assertEqual(-signal.SIGKILL, self.agent('live_migration').wait(20))
        self.assertEqual(({'alpha': GuestState.RUNNING}, []), (self.world.where(self.uuid), self.world.jobs(self.uuid)))

    def test_die_during_leaves_the_job_running(self):
        self.world.inject('alpha', 'live_migration', 'die-during')
        self.assertEqual(-signal.SIGKILL, self.agent('live_migration').wait(20))
        self.assertEqual(1, len(self.world.jobs(self.uuid)))
        hands.wait_for(self.arrived, 'the guest at beta', 20)

    def test_die_after_has_taken_effect(self):
        self.world.inject('alpha', 'live_migration', 'die-after')
        self.assertEqual(-signal.SIGKILL, self.agent('live_migration').wait(20))
        self.assertTrue(self.arrived())

    def test_a_kill_point_works_once_and_the_next_agent_finds_the_work_done(self):
        self.a.live_migration(self.plan, {})
        self.world.inject('alpha', 'post_live_migration_at_source', 'die-after')
        self.assertEqual(-signal.SIGKILL, self.agent('post_live_migration_at_source').wait(20))
        self.assertEqual([], self.world.files(self.uuid, 'alpha'))
        self.assertEqual(0, self.agent('post_live_migration_at_source').wait(20))
        self.assertEqual([True, False], [c.changed for c in self.world.history(self.uuid, 'post_live_migration_at_source')])
        self.assertEqual([], self.world.check())


class TestGreen(unittest.TestCase):
    """Under eventlet's patching the driver waits in native threads, and the hub goes on."""

    def run_green(self, world):
        """Run ten migrations side by side in a patched process."""
        done = subprocess.run([sys.executable, '-c', GREEN, world], capture_output=True, text=True, timeout=60)
        self.assertEqual((0, '10'), (done.returncode, done.stdout.strip()), done.stderr)

    def test_in_memory(self):
        self.run_green('memory:green')

    def test_in_a_file(self):
        with tempfile.TemporaryDirectory() as directory:
            self.run_green(os.path.join(directory, 'world.db'))
