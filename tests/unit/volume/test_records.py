"""Records of LUNs in a pool that is full: what is there can still be changed and removed."""
import errno
import os
import tempfile

import fixtures

from migrator import exceptions
from migrator.volume.records import SPARE, Record, Records
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
        self.useFixture(fixtures.MonkeyPatch('migrator.volume.records.tempfile.mkstemp', mkstemp))

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
        self.assertEqual([], os.listdir(self.temp_dir))
