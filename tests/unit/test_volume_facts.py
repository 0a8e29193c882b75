"""The values about volumes on the wire: each survives the way, and nothing odd gets past `from_wire`."""
import dataclasses
import json
import unittest

from hypothesis import given
from hypothesis import strategies as st

from migrator import exceptions
from migrator.rpc import facts
from migrator.rpc import volume_facts as vf
from tests.unit.test_facts import CALM, JSON, NASTY
from tests.unit.volume import samples


class TestVolumeFacts(unittest.TestCase):
    """Volumes' values."""

    def read(self, cls, data):
        """The value, or None if it was refused in words."""
        try:
            value = facts.from_wire(cls, data)
        except exceptions.InvalidRequest as error:
            self.assertTrue(str(error))
            return None
        self.assertEqual(value, facts.from_wire(cls, json.loads(json.dumps(facts.to_wire(value), allow_nan=False))))
        return value

    def test_each_survives_json(self):
        for value in samples.ALL:
            self.assertEqual(value, facts.from_wire(type(value), json.loads(json.dumps(facts.to_wire(value)))))

    @CALM
    @given(st.data())
    def test_anything_in_one_field(self, data):
        value = data.draw(st.sampled_from(samples.ALL))
        wire = facts.to_wire(value)
        wire[data.draw(st.sampled_from(sorted(wire)))] = data.draw(JSON | NASTY)
        self.read(type(value), wire)

    def test_a_value_that_may_be_missing(self):
        self.assertIsNone(self.read(vf.VolumePlan, facts.to_wire(samples.plan())).connection)
        self.assertIsNone(self.read(vf.VolumePlan, {**facts.to_wire(samples.plan()), 'connection': 5}))
        exported = samples.plan(connection=samples.CONNECTION)
        self.assertEqual(exported, self.read(vf.VolumePlan, facts.to_wire(exported)))

    def test_names_that_would_leave_their_folder(self):
        for name in ('../x', 'a/b', '', '.', 'a\n', 'x' * 200, '-rf'):
            for field in ('lun', 'pool', 'backend'):
                self.assertIsNone(self.read(vf.LunRef, {**facts.to_wire(samples.SOURCE), field: name}), (field, name))

    def test_a_plan_whose_parts_do_not_belong_together(self):
        good = facts.to_wire(samples.plan())
        target = good['target']
        here = {'host': samples.SOURCE.host, 'backend': samples.SOURCE.backend, 'pool': samples.SOURCE.pool, 'lun': samples.SOURCE.lun}
        for bad in ({'target': {**target, 'migration_id': samples.VOLUME}}, {'target': {**target, 'volume_id': samples.MIGRATION}},
                    {'target': {**target, 'size': samples.MIB}}, {'target': {**target, **here}}, {'verification': 'none'}, {'size': 0},
                    {'bandwidth': -1}, {'connection': {'uri': 'file:///etc/passwd'}}):
            self.assertIsNone(self.read(vf.VolumePlan, {**good, **bad}), bad)

    def test_sizes_are_whole_sectors(self):
        self.assertIsNone(self.read(vf.VolumeSpec, {**facts.to_wire(samples.SPEC), 'size': 1000}))

    def test_a_heartbeat_with_two_backends_of_one_name(self):
        beat = dataclasses.replace(samples.HEARTBEAT, backends=(samples.BACKEND, samples.BACKEND))
        self.assertIsNone(self.read(vf.VolumeHeartbeat, facts.to_wire(beat)))

    def test_a_heartbeat_with_odd_progress(self):
        for bad in ({'no-uuid': {}}, {samples.MIGRATION: {'done': -1}}, {samples.MIGRATION: 5}):
            self.assertIsNone(self.read(vf.VolumeHeartbeat, {**facts.to_wire(samples.HEARTBEAT), 'progress': bad}), bad)

    def test_exports_have_the_same_name_at_each_repetition(self):
        self.assertEqual((f'migration-{samples.MIGRATION}', f'attachment-{samples.ATTACHMENT}'),
                         (samples.plan().export, samples.ATTACHED.export))
        self.assertTrue(vf.LUN.match(samples.plan().export))
