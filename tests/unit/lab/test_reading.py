"""The lab's judges - of the console, of the disk, of what may be erased - must see what is wrong: a lab that cannot fail proves nothing."""
import ipaddress
import json
import pathlib
import tempfile
import threading
import time

import fixtures
import testtools

from tests.lab import console, disk, guest, network, record
from tests.lab.errors import LabError


class ConsoleTest(testtools.TestCase):
    """Ticks are followed over the hosts that a guest visits."""

    def setUp(self):
        """Two hosts' console files that do not exist yet, followed."""
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.files = [pathlib.Path(folder.name) / name for name in ('alpha', 'beta')]
        self.console = console.Console(self.files, interval=0.005)
        self.addCleanup(self.console.close)

    def _say(self, index, text):
        with open(self.files[index], 'a') as file:
            file.write(text)

    def test_a_line_cut_by_the_move_is_put_together(self):
        """Given a line whose halves stand in the files of two hosts, it counts as one tick, and none is missing."""
        self._say(0, 'tick 0 1.0\r\ntick 1 1')
        self.console.wait_for('tick 0')
        self._say(1, '.1\ntick 2 1.2\n')
        self.console.wait_for('tick 2')
        self.assertEqual([(0, 1.0), (1, 1.1), (2, 1.2)], [(tick.number, tick.uptime) for tick in self.console.ticks()])
        self.assertEqual([], self.console.missing())

    def test_what_was_read_outlives_the_file(self):
        """Given a source whose directory is removed after the move, its ticks are still there."""
        self._say(0, 'tick 0 1.0\n')
        self.console.wait_for('tick 0')
        self.files[0].unlink()
        self._say(1, 'tick 1 1.1\n')
        self.console.wait_for('tick 1')
        self.assertEqual([0, 1], [tick.number for tick in self.console.ticks()])

    def test_a_lost_tick_is_named(self):
        """Given ticks 0, 1 and 4, ticks 2 and 3 are missing."""
        self._say(0, 'tick 0 1.0\ntick 1 1.1\ntick 4 1.4\n')
        self.console.wait_for('tick 4')
        self.assertEqual([2, 3], self.console.missing())

    def test_a_source_that_ran_on_for_an_instant_leaves_no_gap(self):
        """Given a guest at the destination, of which the source says one more old tick before it is held there, none is missing."""
        self._say(0, 'tick 0 1.0\ntick 1 1.1\n')
        self.console.wait_for('tick 1')
        self._say(1, 'tick 2 1.2\ntick 3 1.3\ntick 4 1.4\n')
        self.console.wait_for('tick 4')
        self._say(0, 'tick 2 1.2\n')
        self.console.wait_for('tick 4 1.4\ntick 2 1.2')
        self._say(1, 'tick 5 1.5\n')
        self.console.wait_for('tick 5')
        self.assertEqual([], self.console.missing())

    def test_a_pause_is_what_a_lack_of_processors_does_not_explain(self):
        """Given a silence of 0.3 s, it counts whole on a machine at rest, and not at all if processes waited for 0.3 s meanwhile."""
        for waited in (0.0, 0.3):
            lack = iter([7.0, 7.0 + waited])
            self.useFixture(fixtures.MonkeyPatch('tests.lab.console.lack_of_processors', lambda lack=lack: next(lack)))
            files = [self.files[0].with_name(f'waited-{waited}')]
            with console.Console(files, interval=0.005) as followed:
                files[0].write_text('tick 0 1.0\n')
                followed.wait_for('tick 0')
                threading.Event().wait(0.3)
                with files[0].open('a') as file:
                    file.write('tick 1 1.1\n')
                followed.wait_for('tick 1')
            self.assertEqual(not waited, followed.longest_pause() > 0.29)

    def test_silence_shows_by_our_clock_only(self):
        """Given a guest that was paused for 0.3 s, and whose own clock stood still, the gap shows by arrival."""
        self._say(0, 'tick 0 1.0\n')
        self.console.wait_for('tick 0')
        threading.Event().wait(0.3)
        self._say(0, 'tick 1 1.1\n')
        self.console.wait_for('tick 1')
        self.assertGreater(self.console.largest_gap(), 0.29)
        self.assertLess(self.console.largest_gap(by='uptime'), 0.2)
        self.assertEqual(0.0, self.console.largest_gap(since=time.monotonic()))

    def test_waiting_in_vain_says_what_was_heard(self):
        """Given a guest that says nothing more, the wait ends with an error that shows its last words."""
        self._say(0, 'panic\n')
        self.console.wait_for('panic')
        error = self.assertRaises(LabError, self.console.wait_ticks, timeout=0.1)
        self.assertIn('panic', str(error))

    def test_gaps_of_a_text(self):
        """Given a console's text, the gap that is longer than asked for is found, and other lines are no ticks."""
        ticks = console.parse_ticks('Booting\ntick 0 1.00\nwrote 1 1.05\ntick 1 1.10\ntick 2 2.10\n')
        self.assertEqual([(1, 2)], [(one.number, two.number) for one, two in console.find_gaps(ticks, 0.5)])


class DiskTest(testtools.TestCase):
    """Records are read back from an image."""

    def _image(self, numbers, head):
        file = tempfile.NamedTemporaryFile(suffix='.raw')
        self.addCleanup(file.close)
        file.truncate(1 << 20)
        for number in numbers:
            file.seek(number * disk.SECTOR)
            file.write(f'record {number} 1.00'.ljust(511).encode() + b'\n')
        file.seek(0)
        file.write(f'head {head} '.ljust(511).encode() + b'\n')
        file.flush()
        return file.name

    def test_whole(self):
        """Given records 1 to 20 of which 19 were announced, all is well; a record beyond the head does no harm."""
        found = disk.read_records(self._image(range(1, 21), 19), 'raw', limit_mib=1)
        self.assertEqual(disk.Records(19, 20, ()), found)
        found.check(19)

    def test_a_hole(self):
        """Given that record 7 is missing below the head, it is named."""
        found = disk.read_records(self._image([n for n in range(1, 21) if n != 7], 20), 'raw', limit_mib=1)
        self.assertEqual((7,), found.broken)
        self.assertRaises(LabError, found.check, 5)

    def test_an_announced_record_is_not_there(self):
        """Given a disk that ends before what the guest knew to be safe, that is an error."""
        found = disk.read_records(self._image(range(1, 11), 10), 'raw', limit_mib=1)
        self.assertRaises(LabError, found.check, 11)

    def test_a_stale_head(self):
        """Given a head older than what was announced, that is an error: a write was lost."""
        found = disk.read_records(self._image(range(1, 21), 15), 'raw', limit_mib=1)
        self.assertRaises(LabError, found.check, 18)

    def test_fill(self):
        """Given a fill in which one byte is wrong, its place is named."""
        file = tempfile.NamedTemporaryFile(suffix='.raw')
        self.addCleanup(file.close)
        file.seek(disk.FILL_AT)
        file.write(disk.LINE * ((1 << 20) // len(disk.LINE)))
        file.flush()
        disk.check_fill(file.name, 1, 'raw')
        file.seek(disk.FILL_AT + 4242)
        file.write(b'?')
        file.flush()
        self.assertIn(str(disk.FILL_AT + 4242), str(self.assertRaises(LabError, disk.check_fill, file.name, 1, 'raw')))


class NamesTest(testtools.TestCase):
    """Names follow from the folder, fit, and do not clash."""

    def test_the_id_is_the_folders(self):
        """The same folder has the same id however it is written, another has another, and links' names fit 15 characters."""
        self.assertEqual(record.lab_id('/srv/lab'), record.lab_id('/srv/../srv/lab/'))
        self.assertNotEqual(record.lab_id('/srv/lab'), record.lab_id('/srv/lab2'))
        self.assertLessEqual(len(network.outside_link(record.lab_id('/srv/lab'))), 15)

    def test_a_taken_subnet_is_passed_over(self):
        """Given that another lab has the first choice, the next one is taken."""
        first = network.choose_subnet('000007', [])
        second = network.choose_subnet('000007', [first])
        self.assertNotEqual(first, second)
        self.assertTrue(ipaddress.ip_network(second).subnet_of(ipaddress.ip_network('10.99.0.0/16')))

    def test_no_subnet_is_left(self):
        """Given that everything is taken, an error says so."""
        self.assertRaises(LabError, network.choose_subnet, '000007', ['10.0.0.0/8'])

    def test_command_line(self):
        """Options become words of the kernel's command line, and those not asked for are not there."""
        words = guest.command_line(write=0.05, dirty=64).split()
        self.assertTrue({'lab.write=0.05', 'lab.disks=1', 'lab.dirty=64', 'lab.dirty_pause=0.0'} <= set(words))
        self.assertNotIn('lab.poweroff', ' '.join(words))


class EraseTest(testtools.TestCase):
    """Only what is the lab's is removed."""

    def setUp(self):
        """A folder of somebody else's in which a name of the lab's happens to stand."""
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / 'hosts').write_text('127.0.0.1 localhost\n')

    def test_a_foreign_folder_is_not_built_in(self):
        """Given that folder, no lab is begun in it."""
        self.assertRaises(LabError, record.Record(self.folder).begin)
        self.assertEqual(['hosts'], [path.name for path in self.folder.iterdir()])

    def test_a_foreign_folder_is_not_emptied(self):
        """Given that folder, or one with another lab's record (a copy of a lab's folder), erasing removes nothing."""
        for content in (None, {'id': 'abcdef'}):
            if content:
                (self.folder / 'lab.json').write_text(json.dumps(content))
            record.Record(self.folder)._remove_files()
            self.assertTrue((self.folder / 'hosts').exists())
