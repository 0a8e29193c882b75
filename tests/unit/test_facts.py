"""What crosses the wire: every value survives the round trip, and no input, however hostile, gets past `from_wire` or breaks it."""
import dataclasses
import enum
import json
import typing
import unittest

from hypothesis import example, given, settings
from hypothesis import strategies as st

from migrator import exceptions
from migrator.rpc import facts

#: A busy machine must not fail a test for being slow.
CALM = settings(deadline=None, max_examples=100)
CLASSES = (facts.Disk, facts.Guest, facts.Host, facts.Job, facts.Location, facts.DestinationFacts, facts.SourceFacts, facts.Plan,
           facts.NewDisk, facts.InstanceSpec, facts.Envelope, facts.Report, facts.Heartbeat)

UUID = st.uuids().map(str)
WORD = st.text('abcxyz019', min_size=1, max_size=6)
HOST = st.builds('{}.{}-{}'.format, WORD, WORD, WORD) | WORD
OP_ID = st.builds('{}/{}/{}'.format, UUID, WORD, st.integers(0, 999999))
PATTERNS = {facts.UUID: UUID, facts.HOST: HOST, facts.NAME: HOST, facts.OP_ID: OP_ID,
            facts.TARGET: st.from_regex(r'[a-z]{2,4}', fullmatch=True)}
TEXT = st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=10)
SCALAR = (st.none() | st.booleans() | st.integers() | st.integers(-(2 ** 300), 2 ** 300) | st.floats() | st.text(max_size=10)
          | st.binary(max_size=4))
JSON = st.recursive(SCALAR, lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    | st.tuples(inner, inner)), max_leaves=8)
NASTY = st.sampled_from((
    '../../etc/passwd', '/a/../b', 'a/b', '/instances/\x00', '\n', ' ', '', 'x' * 5000, '00000000-0000-0000-0000-00000000000g',
    '00000000-0000-0000-0000-000000000000\n', 'vda\n', 'host\n', "'; DROP TABLE migration; --", '\ud800', '$(id)', '-rf', 2 ** 62 + 1,
    2 ** 64, 10 ** 400, 10 ** 5000, -1, float('nan'), float('inf'), float('-inf'), True, None, [], {}, [[]], {'a': {}}, [10 ** 5000]))


def valid(cls):
    """A strategy of well-formed values of a wire class."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: _field(f, hints[f.name]) for f in dataclasses.fields(cls)}
    if cls in (facts.Plan, facts.InstanceSpec):
        disk = valid(facts.Disk if cls is facts.Plan else facts.NewDisk)
        fields['disks'] = st.lists(disk, max_size=3, unique_by=lambda d: d.target).map(tuple)
    if cls is facts.Heartbeat:
        fields['gone'] = fields['named'] = st.lists(UUID, max_size=3).map(tuple)
        fields['progress'] = st.dictionaries(UUID, valid(facts.Job).map(facts.to_wire), max_size=2)
    values = st.builds(cls, **fields)
    return values.flatmap(_with_copies) if cls is facts.Plan else values


def _with_copies(plan):
    """The plan with some of its disks copied, at paths that may be written to."""
    place = {'kind': 'file', 'directory': '/instances', 'backing': ''}
    disks = tuple(dataclasses.replace(d, path=f'/instances/{plan.instance_uuid}/{d.target}', **place) for d in plan.disks)
    targets = [d.target for d in disks]
    chosen = st.lists(st.sampled_from(targets), unique=True) if targets else st.just([])
    return chosen.map(lambda copy: dataclasses.replace(plan, disks=disks, copy=tuple(copy)))


def _field(field, hint):
    if field.metadata.get('pattern') in PATTERNS:
        return PATTERNS[field.metadata['pattern']]
    if field.metadata.get('low') is not None:
        numbers = st.floats if hint is float else st.integers
        return numbers(field.metadata['low'], field.metadata['high'])
    if field.metadata.get('pattern') is not None:  # a text that may be empty: one that is always fits
        return st.just(field.default)
    return _plain(hint)


def _plain(hint):
    if typing.get_origin(hint) is tuple:
        return st.lists(_plain(typing.get_args(hint)[0]), max_size=3).map(tuple)
    if dataclasses.is_dataclass(hint):
        return valid(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    return {str: TEXT, bool: st.booleans(), int: st.integers(0, 2 ** 62), float: st.floats(0, 1e12),
            dict: st.dictionaries(TEXT, TEXT, max_size=3)}[hint]


class TestRoundTrip(unittest.TestCase):
    """to_wire and from_wire are each other's inverse, through JSON."""

    @settings(CALM, max_examples=200)
    @given(st.sampled_from(CLASSES).flatmap(valid))
    def test_a_value_survives_json(self, value):
        self.assertEqual(value, facts.from_wire(type(value), json.loads(json.dumps(facts.to_wire(value)))))

    @CALM
    @given(st.sampled_from(CLASSES).flatmap(valid))
    def test_the_same_value_is_the_same_on_the_wire(self, value):
        wire = facts.to_wire(value)
        self.assertEqual(wire, facts.to_wire(facts.from_wire(type(value), wire)))

    @CALM
    @given(st.sampled_from(CLASSES).flatmap(valid), st.dictionaries(TEXT.map('x-{}'.format), JSON, max_size=3))
    def test_what_a_newer_peer_sends_in_addition_is_dropped(self, value, more):
        self.assertEqual(value, facts.from_wire(type(value), {**facts.to_wire(value), **more}))

    def test_what_an_older_peer_does_not_send_takes_the_default(self):
        self.assertEqual(facts.Job(), facts.from_wire(facts.Job, {}))
        self.assertEqual(facts.Disk(target='vda'), facts.from_wire(facts.Disk, {'target': 'vda'}))
        self.assertRaises(exceptions.InvalidRequest, facts.from_wire, facts.Disk, {})


class TestHostileInput(unittest.TestCase):
    """Only InvalidRequest, and what passes is well formed: it can be sent on, and reads back the same."""

    def read(self, cls, data):
        """Read hostile data: the value, or None when it was refused as it should be."""
        try:
            value = facts.from_wire(cls, data)
        except exceptions.InvalidRequest as error:
            self.assertTrue(str(error))
            self.assertLess(len(str(error)), 2000, 'an error must not carry the whole payload back')
            return None
        self.assertEqual(value, facts.from_wire(cls, json.loads(json.dumps(facts.to_wire(value), allow_nan=False))))
        return value

    @settings(CALM, max_examples=200)
    @given(st.sampled_from(CLASSES), JSON | NASTY)
    def test_anything_instead_of_an_object(self, cls, data):
        self.read(cls, data)

    @settings(CALM, max_examples=500)
    @given(st.data())
    def test_anything_in_one_field(self, data):
        cls = data.draw(st.sampled_from(CLASSES))
        wire = facts.to_wire(data.draw(valid(cls)))
        wire[data.draw(st.sampled_from(sorted(wire)))] = data.draw(JSON | NASTY)
        self.read(cls, wire)

    @CALM
    @given(st.sampled_from(CLASSES).flatmap(lambda cls: st.tuples(
        st.just(cls), st.fixed_dictionaries({}, optional={f.name: JSON | NASTY for f in dataclasses.fields(cls)}))))
    def test_anything_in_every_field(self, case):
        self.read(*case)

    @CALM
    @given(NASTY | JSON)
    @example('11111111-1111-4111-8111-111111111111\n')
    @example('11111111-1111-4111-8111-11111111111A')
    def test_a_uuid_is_a_uuid_in_its_one_spelling(self, text):
        self.assertIsNone(self.read(facts.Guest, {'uuid': text}))

    @CALM
    @given(st.sampled_from(('/a/../b', '/..', '../a', 'a', '/a//b', '/a/./b', '/a\nb', '/a\x00b', '/' + 'a' * 5000, '/a/..', 'file:///a')))
    def test_a_path_is_absolute_and_stays_where_it_says(self, path):
        for cls, required, field in ((facts.Disk, {'target': 'vda'}, 'directory'),
                                     (facts.NewDisk, {'target': 'vda'}, 'directory'),
                                     (facts.NewDisk, {'target': 'vda'}, 'backing'),
                                     (facts.InstanceSpec, SPEC, 'kernel'), (facts.InstanceSpec, SPEC, 'initrd')):
            self.assertIsNone(self.read(cls, {**required, field: path}), (cls, field, path))

    def test_a_plan_copies_only_its_own_disks_within_their_directory(self):
        disk = {'target': 'vda', 'directory': '/instances', 'path': '/instances/guest/vda.qcow2'}
        self.assertIsNotNone(self.read(facts.Plan, {**PLAN, 'disks': [disk], 'copy': ['vda']}))
        self.assertIsNone(self.read(facts.Plan, {**PLAN, 'disks': [disk], 'copy': ['vdb']}))
        for bad in ({'path': '/etc/passwd'}, {'path': ''}, {'path': '/instances/../etc/passwd'}, {'path': '/instances-2/vda'},
                    {'kind': 'network', 'path': 'nbd://a/b'}, {'directory': ''}, {'backing': '/instances/../etc/shadow'}):
            self.assertIsNone(self.read(facts.Plan, {**PLAN, 'disks': [{**disk, **bad}], 'copy': ['vda']}), bad)

    def test_odd_words_of_a_hypervisor_are_made_fit_for_the_wire(self):
        report = facts.Report(**REPORT, error='bad \x00 and \ud800 words', result={'a': ['\x00']})
        read = self.read(facts.Report, facts.to_wire(report))
        self.assertEqual(('bad \ufffd and ? words', {'a': ['\ufffd']}), (read.error, read.result))

    def test_targets_that_would_leave_the_directory(self):
        for target in ('../vda', 'vda/..', 'vda\n', '', 'VDA', 'v' * 50, 'vda0000', None, 7, ['vda']):
            self.assertIsNone(self.read(facts.Disk, {'target': target}), target)

    def test_numbers_that_are_too_large_or_no_numbers(self):
        for number in (-1, 2 ** 63, 10 ** 400, 1.5, '5', True, None, float('nan')):
            self.assertIsNone(self.read(facts.Disk, {'target': 'vda', 'size': number}), number)
            if number != -1:  # what is only shown may be odd; it must not keep a heartbeat from being heard
                self.assertIsNone(self.read(facts.Job, {'memory_total': number}), number)
            self.assertIsNone(self.read(facts.InstanceSpec, {**SPEC, 'memory_mib': number}), number)
        for number in (float('nan'), float('inf'), 10 ** 400, '5', True, None):
            self.assertIsNone(self.read(facts.Envelope, {**ENVELOPE, 'not_after': number}), number)

    def test_states_that_do_not_exist(self):
        for state in ('flying', '', None, [], {}, 5, ['running']):
            self.assertIsNone(self.read(facts.Location, {'state': state}), state)

    def test_nesting_without_end(self):
        deep = []
        for _ in range(100_000):
            deep = [deep]
        for cls, wire in ((facts.Guest, {'uuid': SPEC['uuid'], 'disks': deep}), (facts.Host, {'storage': {'/a': deep}}),
                          (facts.Report, {**REPORT, 'result': {'a': deep}}), (facts.Heartbeat, {'host': 'a', 'progress': {'a': deep}})):
            self.assertIsNone(self.read(cls, wire), cls)
        while deep:  # taken apart here, or its destruction would recurse
            deep = deep.pop()

    def test_two_disks_cannot_have_one_target(self):
        twice = [{'target': 'vda'}, {'target': 'vda'}]
        self.assertIsNone(self.read(facts.InstanceSpec, {**SPEC, 'disks': twice}))
        self.assertIsNone(self.read(facts.Plan, {**PLAN, 'disks': twice}))

    def test_text_cannot_carry_what_json_or_a_database_refuses(self):
        for text in ('\ud800', 'a\x00b'):
            for cls, wire, field in ((facts.Guest, {'uuid': SPEC['uuid']}, 'name'), (facts.Report, REPORT, 'error'),
                                     (facts.Host, {}, 'hypervisor_name'), (facts.Disk, {'target': 'vda'}, 'serial')):
                self.assertIsNone(self.read(cls, {**wire, field: text}), (cls, field))


SPEC = {'uuid': '11111111-1111-4111-8111-111111111111', 'name': 'guest'}
ENVELOPE = {'op_id': SPEC['uuid'] + '/pre_live_migration/1', 'migration_id': SPEC['uuid']}
REPORT = {**ENVELOPE, 'host': 'alpha'}
PLAN = {'migration_id': SPEC['uuid'], 'instance_uuid': SPEC['uuid'], 'source_host': 'a', 'destination_host': 'b'}
