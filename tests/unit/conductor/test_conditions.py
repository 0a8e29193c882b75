"""What a step may depend on: each condition, for everything that drivers and users may say."""
from migrator.conductor.workflows import conditions
from migrator.conductor.workflows.conditions import CONDITIONS, against, meaning
from tests import base

BEFORE, AFTER = {'moved': False}, {'moved': True}


def source_said(**told):
    """What is known once the source driver has returned."""
    return {**BEFORE, 'migrate_volume': told}


def target_said(known, **told):
    """What is known once the target driver has returned. known: BEFORE or AFTER that is committed."""
    return {**known, 'migrate_volume_target': told}


class ConditionsTest(base.TestCase):

    def holds(self, name, known):
        words = against(name, known)
        self.assertIsInstance(words, str)
        return not words

    def test_no_condition_is_none(self):
        self.assertEqual('', against('', {}))
        self.assertRaises(KeyError, against, 'nonsense', BEFORE)

    def test_each_has_its_meaning(self):
        for name in CONDITIONS:
            self.assertNotEqual('', meaning(name))
            self.assertIs(CONDITIONS[name], getattr(conditions, name))

    def test_drivers_are_asked_unless_the_request_says_otherwise(self):
        self.assertTrue(self.holds('drivers_may_move', BEFORE))
        self.assertTrue(self.holds('drivers_may_move', {**BEFORE, 'options': {'force_host_copy': False, 'new_type': ''}}))
        self.assertFalse(self.holds('drivers_may_move', AFTER))
        self.assertIn('host copy', against('drivers_may_move', {**BEFORE, 'options': {'force_host_copy': True}}))
        self.assertIn('type', against('drivers_may_move', {**BEFORE, 'options': {'new_type': 'gold'}}))

    def test_nothing_is_made_of_what_no_driver_said(self):
        """Given a driver that returned nothing, or what is no truth value, then it has not moved the volume."""
        for told in ({}, {'moved': 'yes'}, {'moved': 1}, {'moved': None}, {'moved': False}):
            self.assertFalse(self.holds('moved_by_source', source_said(**told)), told)
            self.assertFalse(self.holds('taken_over', target_said(BEFORE, **told)), told)
        self.assertFalse(self.holds('moved_by_source', BEFORE))
        self.assertFalse(self.holds('taken_over', {**BEFORE, 'migrate_volume_target': 'moved'}))

    def test_moved(self):
        self.assertTrue(self.holds('moved_by_source', source_said(moved=True, model_update={})))
        self.assertTrue(self.holds('taken_over', target_said(BEFORE, moved=True)))

    def test_a_target_that_does_not_say_is_taken_to_be_fetching_data(self):
        """For then the source is kept until complete_migration_target has proven that it is needed no more."""
        for told, at_once in (({}, False), ({'migration_async': True}, False), ({'migration_async': 'no'}, False),
                              ({'migration_async': 0}, False), ({'migration_async': False}, True)):
            said = {'moved': True, **told}
            self.assertEqual(at_once, self.holds('taken_over_at_once', target_said(BEFORE, **said)), told)
            self.assertEqual(not at_once, self.holds('still_arriving', target_said(AFTER, **said)), told)

    def test_nothing_arrives_that_is_not_committed(self):
        self.assertFalse(self.holds('still_arriving', {**BEFORE, 'migrate_volume_target': {'moved': True, 'migration_async': True}}))
        self.assertFalse(self.holds('still_arriving', {**AFTER, 'migrate_volume': {'moved': True}}))

    def test_not_moved(self):
        self.assertTrue(self.holds('not_moved', BEFORE))
        self.assertFalse(self.holds('not_moved', AFTER))
