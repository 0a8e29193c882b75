"""The simulated hypervisor passes the contract of compute drivers, in memory and in a file, and the world it lives in stays whole."""
import os
import tempfile
import unittest

from tests.contract.compute_driver import ComputeDriverContract
from tests.contract.fake import FakeHarness


class InMemory(ComputeDriverContract, unittest.TestCase):
    """The contract, in a world of this process; after every scenario one copy is in charge and nothing is lost."""

    def make_harness(self):
        harness = FakeHarness()
        self.addCleanup(harness.world.forget)
        self.addCleanup(lambda: self.assertEqual([], harness.world.check()))
        return harness


class InAFile(ComputeDriverContract, unittest.TestCase):
    """The contract, in a world that other processes could share."""

    def make_harness(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        harness = FakeHarness(os.path.join(directory.name, 'world.db'))
        self.addCleanup(harness.world.forget)
        self.addCleanup(lambda: self.assertEqual([], harness.world.check()))
        return harness
