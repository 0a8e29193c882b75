"""The copier of volumes against real storage daemons: whole, sparse, resumed, throttled, ended with its agent, compared."""
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import time
import types

from migrator.volume import copier_path
from tests import base
from tests.functional.test_qsd_driver import QsdHarness

MIB = 1 << 20
SIZE = 64 * MIB
WRITTEN = 28 * MIB - 4096


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
        self.harness.write(self.source, 60 * MIB, WRITTEN - 24 * MIB, 0x11)
        self.checkpoint = self.temp_dir / 'checkpoint'

    def start(self, *options, what='copy'):
        places = [self.source.uri, self.destination.uri]
        if what == 'copy':
            places += [self.checkpoint, '--identity', 'one another']
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
        code, said = self.start().end()
        self.assertEqual((0, 'complete', WRITTEN), (code, said['ended'], said['moved']))
        self.assert_same()
        self.assertLess(self.allocated(), 29 * MIB)

    def test_zeros_read_as_zeros_on_a_dirty_destination(self):
        self.harness.write(self.destination, 0, SIZE, 0xee)
        self.assertEqual(0, self.start().end()[0])
        self.assert_same()
        self.assertLess(self.allocated(), 29 * MIB)

    def test_only_what_is_dirty_is_zeroed(self):
        """Given a destination with a little dirt where the source has zeros, then that is zeroed and nothing else is allocated."""
        self.harness.write(self.destination, 30 * MIB, MIB, 0xee)
        self.harness.write(self.destination, 59 * MIB + 4096, 2 * MIB, 0xee)
        self.assertEqual(0, self.start().end()[0])
        self.assert_same()
        self.assertLess(self.allocated(), 29 * MIB)

    def test_killed_it_goes_on_behind_what_was_flushed(self):
        """Given a copy that is killed on the way, when it is begun again, then it moves only what the checkpoint does not have."""
        first = self.start('--record', 0.1, '--rate', 16 * MIB)
        self.wait_for(lambda: self.checkpoint.exists() and self.done() >= 8 * MIB, 'some records')
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        done = self.done()
        code, said = self.start().end()
        self.assertEqual((0, done), (code, said['start']))
        self.assertLessEqual(said['moved'], 28 * MIB - done)
        self.assert_same()

    def done(self):
        return json.loads(self.checkpoint.read_text())['done']

    def test_killed_at_any_time_it_ends_up_the_same(self):
        """Given a copy that is killed again and again at random times, when it is let run at last, then it is equal."""
        random.seed(self.id())
        for _ in range(8):
            copier = self.start('--record', 0.02, '--rate', 40 * MIB)
            with contextlib.suppress(subprocess.TimeoutExpired):
                copier.process.wait(random.uniform(0.1, 0.5))
            copier.process.kill()
            copier.process.wait()
        self.assertEqual(0, self.start().end()[0])
        self.assert_same()

    def test_a_checkpoint_of_another_copy_counts_for_nothing(self):
        for other in ({'identity': 'two others'}, {'size': SIZE - 512}, {'version': 0}, {'done': SIZE + 1}):
            self.checkpoint.write_text(json.dumps({'version': 1, 'identity': 'one another', 'size': SIZE, 'done': SIZE} | other))
            self.harness.write(self.destination, 0, 4096, 0xee)
            self.assertEqual(0, self.start().end()[1]['start'])
            self.assert_same()

    def test_a_checkpoint_that_outlived_its_destination_counts_for_nothing(self):
        """Given a whole copy whose destination was then made anew, when it is asked for again, then it begins at zero."""
        self.start().end()
        self.harness.b.unexport('fast', 'vol', 'vol')
        self.harness.b.delete('fast', 'vol')
        self.harness.b.create('fast', 'vol', SIZE, '11111111-2222-3333-4444-555555555555')
        self.harness.b.export('fast', 'vol', 'vol', True)
        code, said = self.start().end()
        self.assertEqual((0, 0, WRITTEN), (code, said['start'], said['moved']))
        self.assert_same()

    def test_what_a_completion_raises_ends_it(self):
        """Given a defect within a completion, which libnbd prints and forgets, when it happens, then the copier ends with an error."""
        defect = ('import sys; sys.path.append(sys.argv.pop(1)); from copier import loop, program\n'
                  'def finished(self, link, error): raise KeyError("a defect")\n'
                  'loop.Loop.finished = finished; sys.exit(program.main())')
        places = [self.source.uri, self.destination.uri, str(self.checkpoint), '--identity', 'x']
        with subprocess.Popen(['/usr/bin/python3', '-c', defect, os.path.dirname(copier_path()), 'copy', *places], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.assertEqual(70, process.wait(30))
            self.assertIn('a defect', process.stderr.read())
            self.assertNotIn('complete', process.stdout.read())

    def test_two_do_not_work_on_one_copy(self):
        """Given a copier at work, when another one is started on the same copy, then it waits a while and gives up."""
        first = self.start('--rate', MIB)
        next(first.lines())
        code, said = self.start().end()
        self.assertEqual((1, 'another copier works on it'), (code, said['error']))
        self.assertIsNone(first.process.poll())

    def test_the_rate_holds_and_can_be_changed(self):
        """Given a rate at which it would take long, when it is lifted, then it ends soon; before that it moved no more than it may."""
        began, copier = time.monotonic(), self.start('--rate', 2 * MIB)
        lines = copier.lines()
        moved = next(line['moved'] for line in lines if time.monotonic() - began > 2)
        self.assertLessEqual(moved, 2 * MIB * (time.monotonic() - began) + 2 * MIB)
        copier.tell(rate=0)
        self.assertEqual('complete', list(lines)[-1]['ended'])
        self.assert_same()

    def test_without_an_agent_it_ends(self):
        copier = self.start('--rate', MIB)
        next(copier.lines())
        copier.close()
        self.assertEqual(2, copier.process.wait(20))

    def test_a_destination_that_goes_away_is_an_error(self):
        copier = self.start('--rate', MIB)
        next(copier.lines())
        self.harness.arrays['b'].kill()
        code, said = copier.end()
        self.assertEqual((1, 'error', 'destination'), (code, said['ended'], said['end']))

    def test_what_was_not_flushed_is_not_recorded(self):
        """Given a destination that takes all writes and fails to flush, then that is an error, and the checkpoint has nothing."""
        socket = self.temp_dir / 'unflushed'
        server = subprocess.Popen(['nbdkit', '--foreground', '--exit-with-parent', '--unix', socket, 'eval', f'get_size=echo {SIZE}',
                                   'pread=head -c $3 /dev/zero', 'pwrite=cat >/dev/null', 'flush=echo EIO no power >&2; exit 1'],
                                  stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.wait_for(socket.exists, 'the server')
        self.destination = types.SimpleNamespace(uri=f'nbd+unix:///?socket={socket}')
        code, said = self.start('--record', 0.2).end()
        self.assertEqual((1, 'destination', 5), (code, said['end'], said['errno']))
        self.assertFalse(self.checkpoint.exists())

    def test_a_destination_that_is_too_small_is_an_error(self):
        self.harness.b.create('fast', 'small', MIB, '11111111-2222-3333-4444-555555555555')
        self.destination = self.harness.b.export('fast', 'small', 'small', True)
        code, said = self.start().end()
        self.assertEqual((1, 'error'), (code, said['ended']))

    def test_comparing_finds_the_difference(self):
        self.start().end()
        digests = set()
        for options in ((), ('--samples', 20, '--seed', 'x'), ('--samples', 20, '--seed', 'x')):
            code, said = self.start(*options, what='verify').end()
            self.assertEqual((0, 'complete', 10 * MIB if options else 28 * MIB), (code, said['ended'], said['compared']))
            digests.add(said['digest'])
        self.assertEqual(2, len(digests))
        self.harness.write(self.destination, 61 * MIB, 4096, 0x12)
        code, said = self.start(what='verify').end()
        self.assertEqual((3, {'ended': 'different', 'offset': 61 * MIB}), (code, said))

    def test_dirt_where_the_source_has_zeros_is_a_difference(self):
        self.start().end()
        self.harness.write(self.destination, 40 * MIB, 4096, 0x12)
        self.assertEqual((3, {'ended': 'different', 'offset': 40 * MIB}), self.start(what='verify').end())
