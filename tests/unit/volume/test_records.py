"""Records of LUNs: in a pool that is full, in one that is not there, and such as cannot be read."""
import errno
import json
import os
import pathlib
import tempfile

import fixtures

from migrator import exceptions
from migrator.volume.pools import MARK
from migrator.volume.records import SPARE, Mirror, Record, Records
from tests import base


class FullPoolTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.records = Records({'fast': self.temp_dir})
        self.spare = os.path.join(self.temp_dir, SPARE)
        self.record = Record('fast', 'volume-1', 'raw', 1 << 20)

    def fill(self):
        """Leave no room, but what is the spare file's."""
        make = tempfile.mkstemp

        def mkstemp(**arguments):
            if os.path.exists(self.spare) or not self.has_given_up:
                raise OSError(errno.ENOSPC, 'No space left on device')
            return make(**arguments)
        self.has_given_up = os.path.exists(self.spare)
        self.useFixture(fixtures.MonkeyPatch('migrator.volume.durable.tempfile.mkstemp', mkstemp))

    def test_a_record_is_changed_by_what_was_kept_for_that(self):
        """Given a LUN in a full pool, when an export of it begins and ends, then both are written down, one after the other."""
        self.records.put(self.record)
        self.fill()
        for exports in ({'attachment': True}, {}):
            self.records.put(Record('fast', 'volume-1', 'raw', 1 << 20, exports=exports))
            self.assertEqual(exports, self.records.get('fast', 'volume-1').exports)
            self.assertTrue(os.path.exists(self.spare), 'nothing is kept for the next time')

    def test_a_pool_that_was_full_before_has_no_room(self):
        self.fill()
        error = self.assertRaises(exceptions.NoSpace, self.records.put, self.record)
        self.assertIn('No space left', str(error))
        self.assertEqual([], os.listdir(self.temp_dir))

    def test_what_is_kept_goes_with_the_last_lun(self):
        other = Record('fast', 'volume-2', 'raw', 1 << 20)
        for record in (self.record, other):
            self.records.put(record)
        self.records.remove(self.record)
        self.assertTrue(os.path.exists(self.spare))
        self.records.remove(other)
        self.assertEqual([MARK], os.listdir(self.temp_dir))


class UnreadableTest(base.TestCase):

    def test_one_that_cannot_be_read_hides_no_other(self):
        """Given records that are empty, of another version, or of another shape, then each is told by its name, and the others are read;
        but nobody who asks for all of them gets some."""
        records = Records({'fast': self.temp_dir})
        good = records.put(Record('fast', 'good', 'raw', 1 << 20, mirror=Mirror('nbd://a:1/x')))
        text = pathlib.Path(self.temp_dir, 'good.lun').read_text(encoding='utf-8')
        whole = json.loads(text)
        odd = {'empty': '', 'half': text[:40], 'list': '[]', 'version': json.dumps({**whole, 'version': 2}),
               'exports': json.dumps({**whole, 'exports': None}), 'writable': json.dumps({**whole, 'exports': {'x': 'yes'}}),
               'size': json.dumps({**whole, 'size': '1 GiB'}), 'mirror': json.dumps({**whole, 'mirror': {'uri': 7}}),
               'more': json.dumps({**whole, 'colour': 'red'}), 'state': json.dumps({**whole, 'state': 'asleep'})}
        for name, words in odd.items():
            pathlib.Path(self.temp_dir, f'{name}.lun').write_text(words, encoding='utf-8')
        found, unreadable = records.look()
        self.assertEqual(([good], {('fast', name) for name in odd}), (found, set(unreadable)))
        for (_, name), why in unreadable.items():
            self.assertIn(f'{name}.lun', why)
        self.assertRaises(exceptions.DriverError, records.all)


    def test_what_somebody_left_who_died_while_he_wrote(self):
        """Given a record that was being written when the agent died, when the next one starts, then it goes, and nothing else does."""
        records = Records({'fast': self.temp_dir, 'gone': f'{self.temp_dir}/gone'})
        records.put(Record('fast', 'volume-1', 'raw', 1 << 20))
        there = set(os.listdir(self.temp_dir))
        tempfile.mkstemp(prefix='.lun-', dir=self.temp_dir)
        records.tidy()
        self.assertEqual(there, set(os.listdir(self.temp_dir)))


class PoolsTest(base.TestCase):
    """A pool with a LUN, whose file system is mounted at `fast`, and whose agent remembers pools."""

    def setUp(self):
        super().setUp()
        self.directory, self.elsewhere = pathlib.Path(self.temp_dir, 'fast'), pathlib.Path(self.temp_dir, 'elsewhere')
        self.directory.mkdir()
        self.memory = pathlib.Path(self.temp_dir, 'state', 'pools.json')
        self.record = Record('fast', 'volume-1', 'raw', 1 << 20)
        self.agent().put(self.record)

    def agent(self):
        """What an agent has of it that has just started."""
        return Records({'fast': str(self.directory)}, lambda: str(self.memory))

    def unmount(self):
        """Leave an empty directory."""
        self.directory.rename(self.elsewhere)
        self.directory.mkdir()

    def assert_gone(self, records, words):
        """Nothing is found there, nothing is made there, and nobody is told that there is no such LUN."""
        for act in (lambda: records.get('fast', 'volume-1'), lambda: records.put(self.record), lambda: records.remove(self.record),
                    records.all, lambda: records.pools['fast']):
            self.assertIn(words, str(self.assertRaises(exceptions.DriverError, act)))
        found, unreadable = records.look()
        self.assertEqual(([], [('fast', '')]), (found, list(unreadable)))

    def test_one_that_is_not_mounted(self):
        """Given a pool that is not mounted, for an agent that has seen it and for one that starts, then it is not there; when it is mounted
        again, then everything is there."""
        records = self.agent()
        records.all()
        self.unmount()
        for each in (records, self.agent()):
            self.assert_gone(each, 'is missing')
        self.assertEqual([], list(self.directory.iterdir()))
        self.directory.rmdir()
        self.assert_gone(self.agent(), 'is missing')
        self.elsewhere.rename(self.directory)
        for each in (records, self.agent()):
            self.assertEqual([self.record], each.all())

    def test_another_one_in_its_place(self):
        """Given another pool that is mounted there, then it is refused until somebody says that it is meant."""
        self.unmount()
        Records({'slow': str(self.directory)}).put(Record('slow', 'other', 'raw', 1 << 20))
        self.assert_gone(self.agent(), 'another one')
        self.memory.unlink()
        self.assertIsNone(self.agent().get('fast', 'volume-1'))

    def test_one_of_before_there_were_marks_and_one_that_never_had_a_lun(self):
        """Given a pool without a mark, then it is used as it is; with the next change it gets one. One that is only looked at gets none."""
        (self.directory / MARK).unlink()
        self.memory.unlink()
        records = self.agent()
        self.assertEqual([self.record], records.all())
        self.assertFalse((self.directory / MARK).exists())
        records.put(self.record)
        self.unmount()
        self.assert_gone(records, 'is missing')

    def test_a_memory_that_cannot_be_read(self):
        """Given an agent that does not know any more which pools there were, then it says so, instead of taking what is there for them."""
        for text in ('', '[1]', '{"fast": 7}'):
            self.memory.write_text(text, encoding='utf-8')
            self.assertIn('pools.json', str(self.assertRaises(exceptions.DriverError, self.agent().all)))
