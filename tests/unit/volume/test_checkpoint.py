"""The copier's checkpoint, and the lock beside it."""
import itertools
import json

from migrator.volume.copier import checkpoint
from tests import base


class CheckpointTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.path = self.temp_dir / 'copy.json'

    def of(self, identity='a b', size=4096):
        return checkpoint.Checkpoint(str(self.path), identity, size)

    def test_what_was_written_is_read(self):
        self.assertEqual(0, self.of().read())
        self.of().write(512)
        self.assertEqual(512, self.of().read())
        self.assertEqual(['copy.json'], [path.name for path in self.temp_dir.iterdir()])

    def test_that_of_another_copy_is_none(self):
        self.of().write(512)
        self.assertEqual([0, 0], [self.of('a c').read(), self.of(size=8192).read()])

    def test_what_cannot_be_meant_is_none(self):
        self.of().write(512)
        good = json.loads(self.path.read_text())
        for wrong in ('', '[]', '{"done": 512}', json.dumps(good | {'done': 4097}), json.dumps(good | {'done': '512'}),
                      json.dumps(good | {'version': 2})):
            self.path.write_text(wrong)
            self.assertEqual(0, self.of().read(), wrong)

    def test_the_lock_is_waited_for_for_a_while(self):
        """Given a copier that holds the lock, when another one wants it, then it waits, gets it if the first ends, and else gives up."""
        held = checkpoint.lock(str(self.path))
        naps = []
        self.assertRaises(checkpoint.Busy, checkpoint.lock, str(self.path), 10.0, itertools.count().__next__, naps.append)
        self.assertEqual(9, len(naps))
        with checkpoint.lock(str(self.path), 10.0, sleep=lambda _: held.close()):
            self.assertTrue(held.closed)
