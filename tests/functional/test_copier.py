"""The copier of volumes against real storage daemons: whole, sparse, resumed, throttled, ended with its agent, compared."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

from migrator.volume import copier_path
from tests import base
from tests.functional.test_qsd_driver import QsdHarness

MIB = 1 << 20
SIZE = 64 * MIB


class Copier:
    """One run of the program, spoken to as the agent does."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(['/usr/bin/python3', copier_path(), *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def lines(self):
        """Yield what it says, until it ends."""
        for line in self.process.stdout:
            yield json.loads(line)

    def end(self):
        """Wait for its end; returns (exit code, last line)."""
        last = list(self.lines())[-1]
        self.close()
        return self.process.wait(30), last

    def tell(self, **words):
        """Send it a line."""
        self.process.stdin.write(json.dumps(words) + '\n')
        self.process.stdin.flush()

    def close(self):
        """Let go of its standard input, as an agent that ends does."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


class CopierTest(base.TestCase):
    """Given a LUN at each of two arrays, 64 MiB each: data, then zeros, then data."""

    timeout = 120

    def setUp(self):
        super().setUp()
        self.harness = QsdHarness(self.useFixture, 'raw')
        owner = '11111111-2222-3333-4444-555555555555'
        self.ends = []
        for driver in (self.harness.a, self.harness.b):
            driver.create('fast', 'vol', SIZE, owner)
            self.ends.append(driver.export('fast', 'vol', 'vol', True))
        self.source, self.destination = self.ends
        self.harness.write(self.source, 0, 24 * MIB, 0x5c)
        self.harness.write(self.source, 60 * MIB, 4 * MIB - 4096, 0x11)
        self.checkpoint = self.temp_dir / 'checkpoint'

    def start(self, *options, what='copy'):
        places = [self.source.uri, self.destination.uri] + ([self.checkpoint] if what == 'copy' else [])
        copier = Copier(what, *places, *options)
        self.addCleanup(copier.process.stdout.close)
        self.addCleanup(copier.process.wait)
        self.addCleanup(copier.process.kill)
        self.addCleanup(copier.close)
        return copier

    def assert_same(self):
        self.assertTrue(self.harness.read(self.source) == self.harness.read(self.destination))

    def allocated(self, end='b'):
        return os.stat(pathlib.Path(self.harness.arrays[end].pools['fast']) / 'vol.raw').st_blocks * 512

    def test_sparse_stays_sparse(self):
        """Given a new destination, when it is copied, then it is equal, and holds no more than the source does."""
        code, said = self.start('--zeroed').end()
        self.assertEqual((0, {'ended': 'complete'}), (code, said))
        self.assert_same()
        self.assertLess(self.allocated(), 29 * MIB)

    def test_zeros_read_as_zeros_on_a_dirty_destination(self):
        self.harness.write(self.destination, 0, SIZE, 0xee)
        self.assertEqual(0, self.start().end()[0])
        self.assert_same()

    def test_killed_it_goes_on_behind_what_was_flushed(self):
        """Given a copy that is killed on the way, when it is begun again, then it moves only what the checkpoint does not have."""
        first = self.start('--zeroed', '--segment', 4 * MIB, '--rate', 16 * MIB)
        self.wait_for(lambda: self.checkpoint.exists() and self.done() >= 8 * MIB, 'two segments')
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        done = self.done()
        moved = [line for line in self.start('--zeroed', '--segment', 4 * MIB).lines() if 'moved' in line][-1]['moved']
        self.assertLessEqual(moved, 28 * MIB - done)
        self.assert_same()

    def done(self):
        return json.loads(self.checkpoint.read_text())['done']

    def test_a_checkpoint_of_another_copy_counts_for_nothing(self):
        self.checkpoint.write_text(json.dumps({'source': 'nbd://x/y', 'destination': self.destination.uri, 'size': SIZE, 'done': SIZE}))
        self.assertEqual(0, self.start('--zeroed').end()[0])
        self.assert_same()

    def test_the_rate_holds_and_can_be_changed(self):
        """Given a rate at which it would take long, when it is lifted, then it ends soon; before that it moved no more than it may."""
        began, copier = time.monotonic(), self.start('--zeroed', '--rate', 2 * MIB)
        lines = copier.lines()
        moved = next(line['moved'] for line in lines if time.monotonic() - began > 2)
        self.assertLessEqual(moved, 2 * MIB * (time.monotonic() - began) + 2 * MIB)
        copier.tell(rate=0)
        self.assertEqual({'ended': 'complete'}, list(lines)[-1])
        self.assert_same()

    def test_without_an_agent_it_ends(self):
        copier = self.start('--zeroed', '--rate', MIB)
        next(copier.lines())
        copier.close()
        self.assertEqual(2, copier.process.wait(20))

    def test_a_destination_that_goes_away_is_an_error(self):
        copier = self.start('--zeroed', '--rate', MIB)
        next(copier.lines())
        self.harness.arrays['b'].kill()
        code, said = copier.end()
        self.assertEqual((1, 'error'), (code, said['ended']))

    def test_a_destination_that_is_too_small_is_an_error(self):
        self.harness.b.create('fast', 'small', MIB, '11111111-2222-3333-4444-555555555555')
        self.destination = self.harness.b.export('fast', 'small', 'small', True)
        code, said = self.start().end()
        self.assertEqual((1, 'error'), (code, said['ended']))

    def test_comparing_finds_the_difference(self):
        self.start('--zeroed').end()
        for options in ((), ('--samples', 20, '--seed', 'x')):
            self.assertEqual((0, {'ended': 'complete'}), self.start(*options, what='verify').end())
        self.harness.write(self.destination, 61 * MIB, 4096, 0x12)
        code, said = self.start(what='verify').end()
        self.assertEqual((3, {'ended': 'different', 'offset': 61 * MIB}), (code, said))
