"""The soak's plan and rules: what it draws is repeatable, and what must never be is told."""
import unittest

from tests.soak import lab, plan, rules, simulated


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


class TestTroubles(unittest.TestCase):
    """How much time was calm."""

    def setUp(self):
        self.troubles = rules.Troubles(settling=5)

    def test_without_trouble_all_is_calm(self):
        """Given nothing that ever happened to the keys, all the time counts, whatever happens to others."""
        self.troubles.begin('c')
        self.assertEqual(10, self.troubles.calm('ab', 100, 110))

    def test_while_there_is_trouble_nothing_is(self):
        """Given a key that is disturbed, nothing counts, nor while a second trouble of the same key goes on."""
        self.troubles.begin('a')
        self.troubles.begin('a')
        self.assertEqual(0, self.troubles.calm('ab', 100, 110))
        self.troubles.end('a', 101)
        self.assertEqual(0, self.troubles.calm('ab', 100, 110))

    def test_after_trouble_things_settle(self):
        """Given a trouble that is over, what comes after the time to settle counts, of the key that was last in trouble."""
        for key, over in (('a', 100), ('b', 102)):
            self.troubles.begin(key)
            self.troubles.end(key, over)
        self.assertEqual([0, 0, 3, 10], [self.troubles.calm('ab', *span) for span in ((95, 100), (100, 107), (100, 110), (110, 120))])
        self.assertEqual(5, self.troubles.calm('a', 100, 110))

    def test_settling_is_what_daemons_are_configured_for(self):
        """Given a conductor's options, the time to settle is that of the claim, the sweep and the poll, for both stages."""
        self.assertEqual(7.5, rules.settling({'claim_seconds': 3.0, 'sweep_interval': '0.5', 'poll_interval': 4, 'other': 9}))
        self.assertEqual(7.5, simulated.SimulatedStage.settling)
        self.assertAlmostEqual(6.3, lab.LabStage.settling)


class TestStandstill(unittest.TestCase):
    """A migration that does not go on. The looks are a second apart, as in a soak."""

    def setUp(self):
        self.troubles, self.rule, self.now = rules.Troubles(settling=2), rules.Standstill(30), 100

    def calm(self, seconds, **changes):
        """Look each second for so long; returns how many seconds passed before the first violation, None if there was none."""
        for second in range(seconds + 1):
            if self.rule.look([row(**changes)], self.troubles, self.now):
                return second
            self.now += 1
        return None

    def test_told_after_the_bound(self):
        """Given a migration that stands where it stood, it is told once the bound is over, not before."""
        self.assertEqual(31, self.calm(100))
        self.assertIn('stands still at running operation live_migration for more than 30 s',
                      self.rule.look([row()], self.troubles, self.now)[0])

    def test_going_on_begins_anew(self):
        """Given a migration that went on meanwhile, the time counts from then; one that ended is no matter any more."""
        self.assertIsNone(self.calm(29))
        self.assertIsNone(self.calm(29, step='post_live_migration_at_source'))
        self.assertIsNone(self.calm(100, status='completed'))
        self.assertIsNone(self.calm(29))

    def test_what_it_needs_and_what_it_does_not(self):
        """Given trouble of what a migration needs it is not told, however long; given trouble of anything else it is."""
        for key in ('a', 'b', 'broker', 'database', 'conductors'):
            self.setUp()
            self.troubles.begin(key)
            self.assertIsNone(self.calm(100), key)
        for key in ('c', 'conductor-0'):
            self.setUp()
            self.troubles.begin(key)
            self.assertEqual(31, self.calm(100), key)

    def test_the_clock_stands_and_goes_on(self):
        """Given trouble half way, its time and the time to settle are left out, and what was calm before it still counts."""
        self.assertIsNone(self.calm(20))        # 20 calm seconds
        self.troubles.begin('b')
        self.assertIsNone(self.calm(50))
        self.troubles.end('b', self.now)
        self.assertEqual(2 + 11, self.calm(100))

    def test_a_stuck_one_is_found_in_spite_of_trouble_each_10_seconds(self):
        """Given a migration that is stuck, and 4 s of trouble in each 10 of its hosts, broker or database by turns, it is told."""
        told = None
        for number in range(20):
            key = ('a', 'broker', 'b', 'database')[number % 4]
            self.troubles.begin(key)
            self.assertIsNone(self.calm(3))
            self.troubles.end(key, self.now)
            told = self.calm(5)
            if told is not None:
                break
        self.assertIsNotNone(told)
        self.assertEqual(10, number)        # 3 calm seconds in each round

    def test_late_looks_count_little(self):
        """Given a machine that is so busy that looks come 20 s apart, each counts as a stride of 5 s."""
        told = [bool(self.rule.look([row()], self.troubles, 100 + 20 * look)) for look in range(8)]
        self.assertEqual([False] * 7 + [True], told)

    def test_a_queued_one_may_wait_longer(self):
        """Given a queued migration, which waits for others, it is told after four times the bound."""
        self.assertEqual(121, self.calm(200, status='queued'))


class TestPlansLeaveCalm(unittest.TestCase):
    """The rule on standstill is of use only if what soaks do leaves enough calm for it."""

    def told(self, found, stage, hosts, seconds):
        """For which part of a soak a migration between hosts 0 and 1 that gets stuck then is told before the faults are over."""
        troubles, begun, ended = rules.Troubles(stage.settling), [], []
        for fault in found:
            word = fault.kind.split()[-1]
            concerned = word if word in ('broker', 'database') else f'{fault.target % hosts}'
            if 'conductor' not in fault.kind and (fault.kind != 'driver failure' or 'die' in fault.detail):
                begun.append((fault.at, concerned))
                back = 8 if fault.kind.split()[0] in ('kill', 'restart', 'driver') else 0   # what was killed needs some seconds to be up
                ended.append((fault.at + fault.seconds + back, concerned))
        keys, calm = ('0', '1', 'broker', 'database'), []
        for now in range(int(seconds)):
            for at, key in begun:
                if now <= at < now + 1:
                    troubles.begin(key)
            for at, key in ended:
                if now <= at < now + 1:
                    troubles.end(key, now + 1)
            calm.append(troubles.calm(keys, now, now + 1))
        left = [sum(calm[start:]) for start in range(len(calm))]
        return sum(rest > stage.bound for rest in left) / len(left)

    def test_the_soaks_of_the_page(self):
        """Given the plans of the soaks that the page on durability tells of, the rule can fire in most of the run."""
        self.assertGreater(self.told(plan.faults('s7', 1200, 20, plan.SIMULATED), simulated.SimulatedStage, 16, 1200), 0.6)
        self.assertGreater(self.told(plan.faults('l7', 900, 5, plan.LAB), lab.LabStage, 3, 900), 0.5)


class TestCopies(unittest.TestCase):
    """Guests that run nowhere, or twice."""

    def setUp(self):
        self.rule, self.now = rules.Copies(20), 100

    def calm(self, seconds, states, moving=(), later=None):
        """Look each second for so long, at what hosts say; returns the first violations, or none."""
        for _ in range(seconds + 1):
            found = self.rule.look(['g'], (states, later or states), moving, self.now)
            self.now += 1
            if found:
                return found
        return []

    def test_running(self):
        """Given a guest that runs at one host, or is handed over between the two moments of a look, all is well."""
        self.assertEqual([], self.calm(100, {'a': {'g': 'running'}, 'b': {}}))
        self.assertEqual([], self.calm(100, {'a': {'g': 'running'}, 'b': {'g': 'paused'}},
                                       later={'a': {'g': 'paused'}, 'b': {'g': 'running'}}))

    def test_twice(self):
        """Given two running copies at both moments, that is told at once, migration or not."""
        both = {'a': {'g': 'running'}, 'b': {'g': 'running'}}
        self.assertEqual(['two running copies of g: a, b'], self.calm(0, both, moving={'g'}))

    def test_nowhere(self):
        """Given no copy at all, it is told once the bound is over, also while a migration is under way."""
        for moving in ((), {'g'}):
            self.setUp()
            self.assertEqual([], self.calm(20, {'a': {}}, moving))
            self.assertEqual(['no host has a good copy of g'], self.calm(0, {'a': {}}, moving))

    def test_paused(self):
        """Given a paused copy alone, it is told once no migration has been under way for the bound; one that runs again is well."""
        paused = {'a': {'g': 'paused'}}
        self.assertEqual([], self.calm(100, paused, {'g'}))
        self.assertEqual([], self.calm(20, paused))
        self.assertEqual([], self.calm(0, {'a': {'g': 'running'}}))
        self.assertEqual([], self.calm(20, paused))
        self.assertEqual(['no host has a good copy of g, only one that is paused'], self.calm(0, paused))

    def test_late_looks_count_little(self):
        """Given looks that are 60 s apart, each counts as a stride of 5 s: nobody knows what was in between."""
        told = []
        for look in range(6):
            told.append(bool(self.rule.look(['g'], ({'a': {}}, {'a': {}}), (), 100 + 60 * look)))
        self.assertEqual([False] * 5 + [True], told)

    def test_moving(self):
        """Given what was read before and after, guests with a migration that has not ended, or that came in between, are moving."""
        still, open_, more = ('a', 2, 2), ('a', 3, 2), ('a', 3, 3)
        self.assertEqual(set(), rules.moving({'g': still}, {'g': still}))
        for after in (open_, more, ('b', 2, 2)):
            self.assertEqual({'g'}, rules.moving({'g': still}, {'g': after}))
        self.assertEqual({'g'}, rules.moving({'g': open_}, {'g': open_}))
        self.assertEqual({'g'}, rules.moving({}, {'g': still}))


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

    def test_worth(self):
        """Given how migrations ended, a soak in which none did, or fewer than half were completed, is told in words of its own."""
        self.assertEqual([], rules.worth({'completed': 5, 'failed': 3, 'cancelled': 2, 'running': 90}, {}))
        self.assertEqual(['only 4 of 10 migrations that ended have completed'],
                         rules.worth({'completed': 4, 'failed': 3, 'cancelled': 3}, {}))
        self.assertEqual(['no migration has ended, so nothing was shown; requests were refused: InternalError 3'],
                         rules.worth({'running': 4}, {'InternalError': 3}))
        self.assertEqual(1, len(rules.worth({}, {})))
