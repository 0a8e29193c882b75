"""What follows from a stored transition waits for a worker, not for a claim to end; what has waited for too long is read again."""
import threading
import types
import unittest

from migrator import concurrency
from migrator.conductor import later, stimulus
from migrator.conductor.claims import Claims
from migrator.conductor.cursor import Policy

CLAIM = Policy().claim


class TestLater(unittest.TestCase):
    """One worker, and an engine that notes what it is to go on with."""

    def setUp(self):
        self.pool, self.go, self.done, self.now = concurrency.Pool(1), threading.Event(), [], 100.0
        self.engine = types.SimpleNamespace(claims=Claims(), clock=lambda: self.now, go_on=lambda one, _transition: self.done.append(one),
                                            handle=lambda one, reply: self.done.append((one, reply.event)))
        self.addCleanup(self.go.set)

    def ask(self, migration):
        transition = types.SimpleNamespace(at=self.now, after=types.SimpleNamespace(policy=Policy()))
        later.go_on(self.engine, self.pool, migration, transition)

    def test_with_all_workers_busy_it_waits_and_counts_as_worked_on(self):
        """Given no free worker, when two reports come, both are gone on with as soon as there is one, in order."""
        self.pool.queue(self.go.wait, 5)
        self.ask('first')
        self.ask('second')
        self.assertEqual(([], {'first', 'second'}), (self.done, set(self.engine.claims.held())))
        self.go.set()
        self.assertTrue(self.pool.wait_all(5))
        self.assertEqual((['first', 'second'], []), (self.done, self.engine.claims.held()))

    def test_after_its_claim_it_is_looked_at_as_one_that_is_due(self):
        """Given a transition whose turn comes when its claim has ended, it is read again, for another conductor may be at it."""
        self.pool.queue(self.go.wait, 5)
        self.ask('late')
        self.now += CLAIM
        self.go.set()
        self.assertTrue(self.pool.wait_all(5))
        self.assertEqual(([('late', stimulus.Due())], []), (self.done, self.engine.claims.held()))
