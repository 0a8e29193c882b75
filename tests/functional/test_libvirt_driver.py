"""The libvirt driver on the lab: the contract of compute drivers, and what only real hosts can show."""
import unittest

from tests.contract.compute_driver import ComputeDriverContract
from tests.functional.libvirt_harness import LibvirtHarness
from tests.lab.fixture import LabFixture


class LibvirtCase:
    """A lab as new, and a driver on two of its hosts."""

    def make_harness(self):
        """Two started drivers; the lab's fixture is taken down after the harness."""
        fixture = LabFixture()
        fixture.setUp()
        self.addCleanup(fixture.cleanUp)
        return LibvirtHarness(fixture.lab)


class Contract(LibvirtCase, ComputeDriverContract, unittest.TestCase):
    """Every scenario of the contract."""
