"""A real libvirtd that waits for ever for a guest that ended while its disk was mirrored.

The race for it is lost in 2 of 40 such ends, so here libvirtd's wake-ups are lost on purpose: see tests/lab/lost_wakeup.py.
"""
import signal
import time
import unittest

from migrator import exceptions
from migrator.compute.drivers.libvirt import lasting
from tests.contract import harness as hands
from tests.functional.libvirt_harness import emulator
from tests.functional.test_libvirt_migration import Case
from tests.lab import lost_wakeup, processes

#: Seconds after the guest's end within which the call has to end: of a driver on a machine that has much else to do.
SOON = lasting.GRACE_SECONDS + 30


class Hang(Case, unittest.TestCase):
    """Given a guest that ends in the middle of its disk's copy, when libvirtd does not notice."""

    def given_hang(self):
        """Give (uuid, plan, error of the migration)."""
        spec = self.harness.spec()
        uuid = spec.uuid
        self.a.create_instance(spec)
        self.alpha.virsh('start', uuid)                              # it need not have booted, for its disk alone is copied
        plan = hands.plan_for(self.a, self.b, uuid, bandwidth_mib=1)
        with self.copying(plan, self.b.pre_live_migration(plan)) as outcome:
            hands.wait_for(lambda: self.a.progress(uuid).disk_processed > 0, 'a copied part of the disk', self.harness.patience)
            time.sleep(2)                                            # which the agent, which looks each second, has seen then, too
            with lost_wakeup.lost(self.alpha.libvirtd_pid):
                processes.send(emulator(self.alpha, uuid), signal.SIGTERM)
                hands.wait_for(lambda: 'shut off' in self.alpha.virsh('domstate', uuid), 'the end of the guest', self.harness.patience)
                begun = time.monotonic()
                time.sleep(1)                                        # for the last of libvirtd's wake-ups, which follows the guest's end
            error = outcome.wait(SOON).error
        self.assertGreater(time.monotonic() - begun, lasting.GRACE_SECONDS / 2, 'nothing hung')
        self.assertIsInstance(error, exceptions.DriverError)
        self.assertIn('the guest stopped at alpha', str(error))
        return uuid, plan, str(error)

    def assert_undone_and_startable(self, uuid, plan):
        """The guest is off at a and nowhere else, and can be started."""
        self.undo(plan)
        self.assert_where(uuid, hands.OFF_AT_A)
        self.a.start_instance(uuid)
        self.assert_where(uuid, hands.AT_A)

    def test_libvirtd_is_woken(self):
        """Then its connection to the destination is ended, by which it notices, and the guest can be started."""
        uuid, plan, error = self.given_hang()
        self.assertIn('noticed only when', error)
        self.assert_undone_and_startable(uuid, plan)

    def test_libvirtd_that_cannot_be_woken(self):
        """Then the migration ends all the same, what to do is said, also to whoever starts the guest, and is all that there is to do."""
        self.alpha.run(['mount', '--bind', '/bin/false', '/usr/bin/ss'])
        self.addCleanup(self.alpha.run, ['umount', '/usr/bin/ss'])
        uuid, plan, error = self.given_hang()
        self.assertIn('Restart libvirtd at alpha', error)
        self.undo(plan)
        with self.assertRaises(exceptions.DriverError) as raised:
            self.a.start_instance(uuid)
        self.assertIn('Restart libvirtd at alpha', str(raised.exception))
        self.alpha.kill_libvirtd()
        self.alpha.start_libvirtd()
        self.alpha.wait_ready()
        self.assert_undone_and_startable(uuid, plan)
