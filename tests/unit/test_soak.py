"""The soak's plan and rules: what it draws is repeatable, and what must never be is told."""
import unittest

from tests.soak import plan, rules


class TestPlan(unittest.TestCase):
    """Choices drawn from a seed."""

    def test_a_seed_repeats_everything(self):
        """Given the same seed, faults and moves are the same; given another one, they are not."""
        self.assertEqual(plan.faults('a', 600, 20, plan.SIMULATED), plan.faults('a', 600, 20, plan.SIMULATED))
        self.assertEqual(plan.moves('a', 600, 30), plan.moves('a', 600, 30))
        self.assertNotEqual(plan.faults('a', 600, 20, plan.SIMULATED), plan.faults('b', 600, 20, plan.SIMULATED))
        self.assertNotEqual(plan.moves('a', 600, 30), plan.moves('b', 600, 30))

    def test_there_is_as_much_as_was_asked_for_in_time(self):
        """Given rates, the plan has so many events, in order and within the time, each as long as its kind allows."""
        found = plan.faults('a', 600, 20, plan.LAB)
        self.assertEqual((200, 300), (len(found), len(plan.moves('a', 600, 30))))
        self.assertEqual(sorted(f.at for f in found), [f.at for f in found])
        self.assertTrue(all(5 <= f.at <= 600 and plan.LAB[f.kind].shortest <= f.seconds <= plan.LAB[f.kind].longest for f in found))

    def test_every_kind_comes(self):
        """Given enough faults, each kind is among them, with simulated hosts and with real ones."""
        for kinds in (plan.SIMULATED, plan.LAB):
            self.assertEqual(set(kinds), {f.kind for f in plan.faults('a', 1200, 24, kinds)})

    def test_a_guest_never_goes_where_it_is(self):
        """Given any shift, the destination is another host, and each other host is reached."""
        hosts = ['a', 'b', 'c']
        self.assertEqual({'a', 'c'}, {plan.destination(hosts, 'b', shift) for shift in range(10)})


def row(**changes):
    """Describe a migration that runs from a to b."""
    return rules.Row(**{'id': 'm1', 'instance': 'g', 'source': 'a', 'destination': 'b', 'status': 'running', 'phase': 'operation',
                        'step': 'live_migration', **changes})


class TestStandstill(unittest.TestCase):
    """A migration that does not go on."""

    def setUp(self):
        self.troubles, self.rule = rules.Troubles(), rules.Standstill(30)

    def test_told_after_the_bound(self):
        """Given a migration that stands where it stood, it is told once the bound is over, not before."""
        self.assertEqual([], self.rule.look([row()], self.troubles, 100))
        self.assertEqual([], self.rule.look([row()], self.troubles, 130))
        self.assertIn('stands still', self.rule.look([row()], self.troubles, 131)[0])

    def test_going_on_begins_anew(self):
        """Given a migration that went on meanwhile, the time counts from then; one that ended is no matter any more."""
        self.rule.look([row()], self.troubles, 100)
        self.assertEqual([], self.rule.look([row(step='post_live_migration_at_source')], self.troubles, 129))
        self.assertEqual([], self.rule.look([row(step='post_live_migration_at_source')], self.troubles, 140))
        self.assertEqual([], self.rule.look([row(status='completed')], self.troubles, 300))

    def test_trouble_excuses_those_whom_it_concerns(self):
        """Given that a host of the migration is disturbed, or was a moment ago, it may stand still; another host is no excuse."""
        self.rule.look([row()], self.troubles, 100)
        self.troubles.begin('b')
        self.assertEqual([], self.rule.look([row()], self.troubles, 200))
        self.troubles.end('b', 210)
        self.troubles.begin('c')
        self.assertEqual([], self.rule.look([row()], self.troubles, 240))
        self.assertEqual(1, len(self.rule.look([row()], self.troubles, 241)))

    def test_a_queued_one_may_wait_longer(self):
        """Given a queued migration, which waits for others, it is told after a longer time."""
        self.rule.look([row(status='queued')], self.troubles, 100)
        self.assertEqual([], self.rule.look([row(status='queued')], self.troubles, 200))
        self.assertEqual(1, len(self.rule.look([row(status='queued')], self.troubles, 221)))


class TestRules(unittest.TestCase):
    """What must never be."""

    def test_catalogue(self):
        """Given guests that nothing moved while the world was read, the catalogue has to name where each runs; others are left out."""
        still, moving, moved = ('a', 2, 2), ('a', 3, 2), ('b', 3, 3)
        where = {'g': {'b'}}
        self.assertEqual(1, len(rules.catalogue({'g': still}, {'g': still}, where)))
        self.assertEqual([], rules.catalogue({'g': still}, {'g': still}, {'g': {'a'}}))
        self.assertEqual([], rules.catalogue({'g': moving}, {'g': moving}, where))
        self.assertEqual([], rules.catalogue({'g': still}, {'g': moved}, where))
        self.assertIn('no host', rules.catalogue({'g': still}, {'g': still}, {'g': set()})[0])

    def test_executed_once(self):
        """Given the jobs that hypervisors began, a migration with two of them is told."""
        self.assertEqual([], rules.executed_once(['m1', 'm2']))
        self.assertEqual(['migration m1 was executed 2 times'], rules.executed_once(['m1', 'm2', 'm1']))

    def test_journals(self):
        """Given journals, an operation in two of them, one that still runs, and one whose end nobody took are told."""
        good = ('a', 'm1/live_migration/1', 'live_migration', 'succeeded', True)
        self.assertEqual([], rules.journals([good]))
        self.assertIn('journals of a, b', rules.journals([good, ('b', *good[1:])])[0])
        self.assertIn('still runs', rules.journals([('a', 'm2/x/1', 'x', 'running', False)])[0])
        self.assertIn('never acknowledged', rules.journals([('a', 'm2/x/1', 'x', 'failed', False)])[0])
