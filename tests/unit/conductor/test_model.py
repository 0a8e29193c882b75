"""The model check over the live-migration table: it holds; and a table or an agent that is broken on purpose is caught.

`python -m tests.model.search --faults 2` walks further (MIGRATOR_TEST_FULL=1 does it here).
"""
import dataclasses
import os

import testtools

from migrator.conductor.workflows.live_migration import LIVE_MIGRATION
from migrator.conductor.workflows.model import Role, Step, Workflow
from tests.model.search import Model, search

FULL = os.environ.get('MIGRATOR_TEST_FULL') == '1'


def without(steps, name, **changes):
    """Give the steps with one of them changed."""
    return tuple(dataclasses.replace(s, **changes) if s.name == name else s for s in steps)


class TestModel(testtools.TestCase):
    """Scenarios of the model check."""

    def test_every_interleaving_with_a_fault_ends_well(self):
        """Given the table as it is, when anything goes wrong anywhere, then no rule is broken and no state is without a way to an end."""
        result = search(Model(faults=2 if FULL else 1))
        print(f'{result.visited} states, {result.transitions} transitions, ends: {dict(result.ends)}')
        self.assertIsNone(result.broken)
        self.assertEqual([], result.stuck)
        self.assertGreater(result.visited, 10_000)
        self.assertEqual({'completed', 'failed', 'cancelled'}, set(result.ends))

    def assert_caught(self, words, model):
        """The search must find a broken rule with these words, and the way to it."""
        result = search(model)
        self.assertIsNotNone(result.broken, f'nothing was found in {result.visited} states')
        rule, way = result.broken
        self.assertIn(words, rule)
        self.assertGreater(len(way), 3)

    def test_a_missing_undo_is_caught(self):
        """Given a table without the destination's rollback, then what was prepared there is found to be left."""
        steps = without(LIVE_MIGRATION.steps, 'pre_live_migration', undo=None)
        broken = Workflow('live_migration', steps, ('rollback_live_migration_at_source',), abortable=True)
        self.assert_caught('left at the destination', Model(broken, faults=0))

    def test_a_destructive_step_before_the_proof_is_caught(self):
        """Given a table that clears the source first, then that is found."""
        steps = [s for s in LIVE_MIGRATION.steps if s.name != 'post_live_migration_at_source']
        steps.insert(3, Step('post_live_migration_at_source', on=Role.SOURCE))
        broken = Workflow('live_migration', tuple(steps), LIVE_MIGRATION.undo_order, abortable=True)
        self.assert_caught('the source is cleared though', Model(broken, faults=0))

    def test_trusting_the_hypervisors_call_is_caught(self):
        """Given a table that believes what the call returned, then it acts where the guest is not."""
        steps = without(LIVE_MIGRATION.steps, 'live_migration', observe='', no_return_when='')
        steps = tuple(dataclasses.replace(s, owed=False) for s in steps)
        broken = Workflow('live_migration', steps, LIVE_MIGRATION.undo_order, abortable=True)
        self.assert_caught('the guest', Model(broken, faults=0))

    def test_looking_without_a_fence_is_caught(self):
        """Given agents that accept what was sent before they were looked at, then a late request moves a guest that is being undone."""
        self.assert_caught('the guest', Model(faults=0, fences=False))
