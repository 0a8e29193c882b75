"""How a migration goes, in words: what is being done, how fast, how long it takes still, and what it cost."""
from migrator.cli import pace
from migrator.states import Status
from tests import base
from tests.unit.cli.support import migration

MIB = 1 << 20


def job(copied, elapsed, **values):
    """A job that has copied so many of 100 MiB of memory after so many milliseconds."""
    return {'active': True, 'memory_total': 100 * MIB, 'memory_processed': copied * MIB, 'memory_remaining': (100 - copied) * MIB,
            'elapsed_ms': elapsed, **values}


class WordsTest(base.TestCase):

    def test_what_is_being_done(self):
        copying = {'active': True, 'memory_total': 100, 'memory_remaining': 25, 'disk_total': 10, 'disk_remaining': 5, 'iteration': 2,
                   'memory_processed': 75}
        view = {'status': 'running', 'progress': copying}
        self.assertEqual('copying the disk', pace.words_of(view))
        self.assertEqual((75, 100), pace.share_of(view, 'memory'))
        self.assertEqual((5, 10), pace.share_of(view, 'disk'))
        copying['disk_remaining'] = 0
        self.assertEqual('copying memory, round 2', pace.words_of(view))
        copying.update(memory_processed=0, iteration=0)
        self.assertEqual('copying', pace.words_of(view))
        view['status'] = 'finishing'
        self.assertEqual((100, 100), pace.share_of(view, 'memory'))
        self.assertEqual((0, 0), pace.share_of({'status': 'running', 'progress': {}}, 'disk'))

    def test_every_status_has_words(self):
        for status in Status:
            self.assertTrue(pace.words_of({'status': str(status), 'progress': {}}))

    def test_what_it_cost(self):
        cost = {'downtime_ms': 65, 'elapsed_ms': 13_300, 'memory_processed': 300 * MIB, 'disk_processed': 1 << 30}
        self.assertEqual('downtime 65 ms, 300 MiB of memory and 1 GiB of disk copied in 13.3 s',
                         pace.result_of(migration('completed', statistics=cost)))
        self.assertEqual('2 B of memory copied', pace.result_of(migration('completed', statistics={'memory_processed': 2})))
        self.assertEqual('', pace.result_of(migration('failed')))


class PaceTest(base.TestCase):

    def words(self, *jobs):
        mine = pace.Pace()
        return [mine.words(migration(progress=given)) for given in jobs][-1]

    def test_it_tells_what_remains_and_how_long_that_takes(self):
        self.assertEqual(['60 % copied', '20 MiB/s', '40 MiB left', 'about 2.0 s', 'for 3.0 s'], self.words(job(20, 1000), job(60, 3000)))

    def test_what_the_guest_writes_meanwhile_is_copied_again(self):
        words = self.words(job(20, 1000), job(60, 3000, dirty_rate=10 * MIB))
        self.assertIn('about 4.0 s', words)
        self.assertIn('10 MiB/s written by the guest', words)

    def test_one_that_does_not_converge_has_no_time_left(self):
        for dirty in (20, 30):
            words = ' '.join(self.words(job(20, 1000), job(60, 3000, dirty_rate=dirty * MIB, iteration=3)))
            self.assertIn('no end in sight while the guest writes as fast', words)
            self.assertNotIn('about', words)

    def test_the_first_round_says_nothing_of_an_end_yet(self):
        words = ' '.join(self.words(job(40, 2000, dirty_rate=30 * MIB, iteration=1)))
        self.assertNotIn('no end in sight', words)
        self.assertNotIn('about', words)

    def test_nothing_is_told_before_anything_is_known_and_when_no_job_is_at_work(self):
        self.assertEqual([], self.words({}))
        self.assertEqual([], self.words(job(40, 2000, active=False)))


class RateTest(base.TestCase):

    def test_it_is_that_of_the_last_seconds_by_the_clock_of_the_hypervisor(self):
        """Given a disk that is copied in pieces, the rate does not fall to nothing between two of them, but when nothing follows."""
        rate = pace.Rate()
        self.assertEqual(10 * MIB, rate.update(job(10, 1000)))
        self.assertEqual(10 * MIB, rate.update(job(10, 1000)))  # no news yet
        self.assertEqual(10 * MIB, rate.update(job(20, 2000)))
        self.assertEqual(8 * MIB, rate.update(job(20, 2500)))
        self.assertEqual(10 * MIB, rate.update(job(60, 6000)))
        self.assertEqual(8 * MIB, rate.update(job(60, 7000)))
        self.assertEqual(0, rate.update(job(60, 60_000)))

    def test_another_attempt_begins_from_nothing(self):
        rate = pace.Rate()
        rate.update(job(90, 9000))
        self.assertEqual(5 * MIB, rate.update(job(5, 1000)))

    def test_nothing_known_is_no_rate(self):
        self.assertEqual(0, pace.Rate().update({}))
