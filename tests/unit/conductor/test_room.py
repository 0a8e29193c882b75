"""What of a pool is spoken for: by whom, for how much, and until when."""
from migrator.conductor.room import Reservation, promised
from tests import base

GOLD = 'alpha', 'gold', 'p1'


class OutstandingTest(base.TestCase):

    def test_what_is_under_way_counts_whole(self):
        self.assertEqual(100, Reservation(*GOLD, 100).outstanding(2 ** 52))

    def test_what_has_ended_counts_until_the_array_was_looked_at(self):
        """Given work that ended, then its room is spoken for until a look at the array that began after that end."""
        done = Reservation(*GOLD, 100, ended=5000)
        self.assertEqual([100, 100, 0, 0], [done.outstanding(looked) for looked in (0, 4999, 5000, 5001)])

    def test_data_on_its_way_counts_for_what_is_still_to_come(self):
        for progress, left in (({'total': 100, 'done': 30}, 70), ({'total': 100, 'done': 100}, 0), ({'total': 0, 'done': 0}, 100),
                               ({}, 100), ({'total': 40, 'done': 10}, 30), ({'total': 900, 'done': 10}, 100), ({'total': 5, 'done': 9}, 0)):
            self.assertEqual(left, Reservation(*GOLD, 100, progress=progress).outstanding(0), progress)

    def test_a_copy_that_is_there_takes_nothing_more(self):
        """Given a copy that is being compared, whose progress counts anew, then it takes no more; one that broke off does."""
        for result, left in (({'bytes': 7, 'seconds': 0.5}, 0), ({}, 99), ({'done': 1}, 99)):
            known = Reservation(*GOLD, 100, progress={'total': 100, 'done': 1}, facts={'copy_volume': result})
            self.assertEqual(left, known.outstanding(0))


class PromisedTest(base.TestCase):

    def test_each_pool_has_its_own(self):
        pools = [(*GOLD, '', 0), ('alpha', 'gold', 'p2', '', 0), ('beta', 'gold', 'p1', '', 0)]
        known = [Reservation(*GOLD, 100), Reservation(*GOLD, 50), Reservation('alpha', 'gold', 'p2', 7), Reservation('gone', 'x', 'p1', 9)]
        self.assertEqual({GOLD: 150, ('alpha', 'gold', 'p2'): 7, ('beta', 'gold', 'p1'): 0}, promised(known, pools))

    def test_two_agents_of_one_array_have_its_pools_in_common(self):
        """Given an array that two agents serve, then what is promised by way of one is not free by way of the other, until that one has
        looked, too."""
        pools = [(*GOLD, 'array-1', 6000), ('beta', 'silver', 'p1', 'array-1', 4000), ('beta', 'silver', 'p2', 'array-1', 4000)]
        self.assertEqual({GOLD: 1, ('beta', 'silver', 'p1'): 101, ('beta', 'silver', 'p2'): 0}, promised(
            [Reservation(*GOLD, 100, ended=5000), Reservation('beta', 'silver', 'p1', 1)], pools))
