"""The arithmetic of simulated migrations: progress and duration agree, and end where they must."""
import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from migrator.compute.drivers.fake.simulation import DOWNTIME_LIMIT, Copy

MIB = 1 << 20
AMOUNT = st.integers(0, 1 << 36)
COPIES = st.builds(Copy, memory=AMOUNT, disk=AMOUNT, bandwidth=st.integers(MIB, 1 << 33), dirty_rate=st.integers(0, 1 << 33),
                   minimum=st.floats(0, 100))


class TestCopy(unittest.TestCase):
    """Durations and progress."""

    def test_a_quiet_guest_takes_what_its_memory_and_disks_take(self):
        self.assertAlmostEqual(3.0, Copy(memory=200 * MIB, disk=100 * MIB, bandwidth=100 * MIB, dirty_rate=0).duration())

    def test_dirty_memory_is_sent_again_until_the_rest_fits_the_downtime(self):
        copy = Copy(memory=1000 * MIB, disk=0, bandwidth=100 * MIB, dirty_rate=10 * MIB)
        self.assertAlmostEqual(10 + 1 + 0.1, copy.duration())
        self.assertAlmostEqual(0.1, copy.downtime())

    def test_a_guest_that_dirties_faster_than_the_bandwidth_never_converges_until_it_is_paused(self):
        restless = Copy(memory=100 * MIB, disk=0, bandwidth=10 * MIB, dirty_rate=20 * MIB)
        self.assertIsNone(restless.duration())
        self.assertTrue(restless.at(1000).active)
        paused = Copy(memory=100 * MIB, disk=0, bandwidth=10 * MIB, dirty_rate=20 * MIB, paused_after=4)
        self.assertAlmostEqual(10, paused.duration())
        self.assertAlmostEqual(6, paused.downtime())
        self.assertEqual(0, paused.at(10).memory_remaining)

    def test_a_short_copy_is_stretched_to_the_minimum(self):
        copy = Copy(memory=MIB, disk=0, bandwidth=1000 * MIB, dirty_rate=0, minimum=2.0)
        self.assertEqual(2.0, copy.duration())
        self.assertAlmostEqual(MIB / 2, copy.at(1.0).memory_processed, delta=2)

    @settings(deadline=None)
    @given(COPIES, st.floats(0, 1))
    def test_progress_never_exceeds_its_totals_and_is_done_at_the_end(self, copy, part):
        length = copy.duration()
        job = copy.at((length if length is not None else 1000.0) * part)
        for value in (job.memory_processed, job.disk_processed, job.memory_remaining, job.disk_remaining):
            self.assertGreaterEqual(value, 0)
        self.assertLessEqual(job.disk_processed, copy.disk)
        self.assertLessEqual(job.memory_remaining, copy.memory)
        if length is not None:
            self.assertGreaterEqual(length, copy.minimum)
            self.assertLessEqual(copy.downtime(), DOWNTIME_LIMIT + 1e-6)
            self.assertAlmostEqual(copy.disk, copy.at(length).disk_processed, delta=2 + copy.disk / 1e9)

    @settings(deadline=None)
    @given(COPIES, st.floats(0, 1000))
    def test_a_paused_guest_always_arrives(self, copy, after):
        paused = Copy(copy.memory, copy.disk, copy.bandwidth, copy.dirty_rate, copy.minimum, paused_after=after)
        self.assertGreaterEqual(paused.duration(), after)
        end = paused.at(paused.duration() + 1e-3)
        self.assertEqual((0, 0), (end.memory_remaining, end.disk_remaining))
