"""Fixtures that serve all tests of a class, for clouds that take longer to start than a test takes."""
import unittest


class ClassFixtures(unittest.TestCase):
    """Knows how to use a fixture from `setUpClass`, which the test cases of fixtures and testtools do for single tests only."""

    @classmethod
    def use(cls, fixture):
        """Set a fixture up and return it; it is cleaned up after the last test of the class, the latest first."""
        fixture.setUp()
        cls.addClassCleanup(fixture.cleanUp)
        return fixture
