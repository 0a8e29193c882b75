"""The agent's side of the host copy against real storage daemons, on plain and on green threads, and when the agent is killed."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

from migrator import exceptions
from migrator.rpc import volume_facts as facts
from migrator.volume import copying
from migrator.volume.pools import MARK
from tests import base
from tests.functional.keys import make_keys
from tests.functional.test_qsd_driver import QsdHarness
from tests.service_keeper import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20
SIZE = 64 * MIB
WRITTEN = 32 * MIB
MIGRATION = '6a1f0f2e-52a2-4d5e-9d0f-0b6d8f7f1d11'

#: An agent as small as can be: copies in a native thread while others of its threads go on; the hub may not stand still.
AGENT = """
import json, sys, time
from migrator import concurrency
concurrency.setup()
from migrator.volume import copying
from migrator.volume.pools import MARK
folder, migration, source, destination, rate = sys.argv[1:]
copies = copying.Copying(folder)
ends = copying.End(source, 'a'), copying.End(destination, 'b')
handle = concurrency.spawn(concurrency.run_native, copies.copy, migration, *ends, int(rate))
longest, before = 0.0, time.monotonic()
while not handle.done:
    time.sleep(0.01)
    longest, before = max(longest, time.monotonic() - before), time.monotonic()
print(json.dumps({**handle.wait(), 'longest': longest, 'green': concurrency.is_green()}))
"""


def copiers(folder):
    """Process ids of the copiers whose checkpoint lies in that folder."""
    found = []
    for process in filter(str.isdigit, os.listdir('/proc')):
        try:
            command = pathlib.Path('/proc', process, 'cmdline').read_bytes()
        except OSError:
            continue                                # it has ended
        if os.fsencode(str(folder)) in command and b'--identity' in command:
            found.append(int(process))
    return found


class Qcow2CopyTest(base.TestCase):
    """Given arrays whose LUNs are qcow2 files, and a target with other data than the source."""

    timeout = 120

    def test_it_is_equal_and_sparse_and_verified(self):
        harness = QsdHarness(self.useFixture, 'qcow2')
        copies = copying.Copying(str(self.temp_dir / 'copies'))
        ends = []
        for driver in (harness.a, harness.b):
            driver.create('fast', 'vol', SIZE, MIGRATION)
            ends.append(driver.export('fast', 'vol', 'vol', True))
        harness.write(ends[0], 10 * MIB + 512, 3 * MIB, 0x5c)
        harness.write(ends[1], 0, 30 * MIB, 0xee)
        pair = [copying.End(end.uri, name) for end, name in zip(ends, 'ab', strict=True)]
        copies.copy(MIGRATION, *pair)
        copies.verify(MIGRATION, *pair, 'full')
        self.assertTrue(harness.read(ends[0]) == harness.read(ends[1]))
        self.assertLess(harness.b.show('fast', 'vol').allocated, 5 * MIB)


class CopyingTest(base.TestCase):
    """Given a LUN at each of two arrays, 64 MiB each, the source half full."""

    timeout = 120

    def setUp(self):
        super().setUp()
        self.harness = QsdHarness(self.useFixture, 'raw')
        self.folder = self.temp_dir / 'copies'
        self.copying = copying.Copying(str(self.folder))
        self.addCleanup(self.copying.stop)
        self.ends = {}
        for name, driver in (('a', self.harness.a), ('b', self.harness.b)):
            driver.create('fast', 'vol', SIZE, MIGRATION)
            self.ends[name] = driver.export('fast', 'vol', 'vol', True)
        self.harness.write(self.ends['a'], 0, WRITTEN // 2, 0x5c)
        self.harness.write(self.ends['a'], SIZE - WRITTEN // 2, WRITTEN // 2, 0x11)
        self.pair = (copying.End(self.ends['a'].uri, 'a'), copying.End(self.ends['b'].uri, 'b'))

    def start(self, rate):
        """Copy in a thread; returns a list that gets what it came to."""
        outcome = []

        def call():
            try:
                outcome.append(self.copying.copy(MIGRATION, *self.pair, rate))
            except exceptions.MigratorError as error:
                outcome.append(error)
        thread = threading.Thread(target=call)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.copying.stop)
        return outcome

    def done(self):
        """What the checkpoint says."""
        path = self.folder / f'copy-{MIGRATION}.json'
        return json.loads(path.read_text())['done'] if path.exists() else 0

    def assert_same(self):
        self.assertTrue(self.harness.read(self.ends['a']) == self.harness.read(self.ends['b']))

    def assert_nothing_runs(self):
        self.assertEqual([], self.copying.running())
        self.assertEqual([], copiers(self.folder))

    def test_a_copy_is_whole_and_verified(self):
        self.assertEqual(WRITTEN, self.copying.copy(MIGRATION, *self.pair)['bytes'])
        self.assert_same()
        digests = [self.copying.verify(MIGRATION, *self.pair, how)['digest'] for how in ('sampled', 'full', 'full')]
        self.assertEqual(digests[1], digests[2])
        self.assertEqual(0, self.copying.copy(MIGRATION, *self.pair)['bytes'])
        self.harness.write(self.ends['b'], 5 * MIB, 4096, 0x77)
        error = self.assertRaises(exceptions.DriverError, self.copying.verify, MIGRATION, *self.pair, 'full')
        self.assertIn('b differs from a at byte 5242880', str(error))
        self.assert_nothing_runs()

    def test_a_rate_that_is_lifted_lets_it_end(self):
        """Given a rate at which it would take a minute, when it is lifted, then it ends; its progress never went back."""
        outcome = self.start(MIB // 2)
        seen = [self.wait_for(lambda: self.copying.progress(MIGRATION).total, 'progress') and 0]
        self.wait_for(lambda: seen.append(self.copying.progress(MIGRATION).done) or seen[-1] >= 2 * MIB, 'two MiB', timeout=30)
        self.assertLess(seen[-1], 8 * MIB)
        self.assertTrue(0 < self.copying.progress(MIGRATION).rate < 2 * MIB)
        self.assertTrue(self.copying.set_rate(MIGRATION, 0))
        self.wait_for(lambda: outcome, 'the end')
        self.assertEqual(WRITTEN, outcome[0]['bytes'])
        self.assertEqual(sorted(seen), seen)
        self.assertFalse(self.copying.set_rate(MIGRATION, 0))
        self.assert_same()

    def test_cancelled_it_leaves_no_process_and_can_be_gone_on_with(self):
        outcome = self.start(4 * MIB)
        self.wait_for(lambda: self.done() > 0, 'a record')
        self.assertTrue(self.copying.cancel(MIGRATION))
        self.wait_for(lambda: outcome, 'the end')
        self.assertEqual('MigrationAborted', outcome[0].kind)
        self.assert_nothing_runs()
        self.assertEqual(facts.Progress(), self.copying.progress(MIGRATION))
        done = self.done()
        self.assertEqual(WRITTEN - done, self.copying.copy(MIGRATION, *self.pair)['bytes'])
        self.assert_same()

    def test_forgotten_it_begins_at_zero(self):
        self.copying.copy(MIGRATION, *self.pair)
        self.copying.forget(MIGRATION)
        self.assertEqual([], os.listdir(self.folder))
        self.assertEqual(WRITTEN, self.copying.copy(MIGRATION, *self.pair)['bytes'])

    def test_an_array_that_vanishes_for_long_is_an_error_and_the_copy_goes_on_when_it_is_back(self):
        self.copying = copying.Copying(str(self.folder), patience=3.0)
        self.addCleanup(self.copying.stop)
        for name, words in (('a', 'source'), ('b', 'destination')):
            driver = {'a': self.harness.a, 'b': self.harness.b}[name]
            before, outcome = self.done(), self.start(8 * MIB)
            self.wait_for(lambda before=before: self.done() > before, 'a record')
            self.harness.arrays[name].kill()
            self.wait_for(lambda outcome=outcome: outcome, 'the end')
            self.assertEqual('DriverError', outcome[0].kind)
            self.assertIn(words, str(outcome[0]))
            self.assert_nothing_runs()
            error = self.assertRaises(exceptions.DriverError, self.copying.copy, MIGRATION, *self.pair)
            self.assertIn(words, str(error))
            self.harness.arrays[name].start()
            driver.pools()                          # a heartbeat, which brings the exports back
        done = self.done()
        self.assertGreater(done, 0)
        self.assertLessEqual(self.copying.copy(MIGRATION, *self.pair)['bytes'], WRITTEN - min(done, WRITTEN // 2))
        self.assert_same()

    def test_a_source_that_wants_tls_is_copied_with_the_credentials_and_not_without(self):
        keys = make_keys(self.temp_dir / 'keys with a space')
        source = self.tls_server(keys)
        for credentials in ('', str(self.temp_dir)):
            pair = (copying.End(source, 'tls', credentials), self.pair[1])
            error = self.assertRaises(exceptions.DriverError, self.copying.copy, MIGRATION, *pair)
            self.assertIn('source', str(error))
        pair = (copying.End(source, 'tls', str(keys)), self.pair[1])
        self.copying.copy(MIGRATION, *pair)
        self.copying.verify(MIGRATION, *pair, 'full')
        self.assertEqual(bytes.fromhex('0000000000001000'), self.harness.read(self.ends['b'])[0x1000:0x1008])

    def tls_server(self, keys):
        """Serve a pattern of 64 MiB over TLS to who has a certificate; returns the address."""
        port = free_port('127.0.0.1')
        server = subprocess.Popen(['nbdkit', '--foreground', '--exit-with-parent', '--ipaddr', '127.0.0.1', '--port', str(port),
                                   '--tls', 'require', '--tls-verify-peer', '--tls-certificates', str(keys), 'pattern', str(SIZE)],
                                  stdin=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        uri = f'nbds://127.0.0.1:{port}/x'
        self.wait_for(lambda: subprocess.run(['nbdinfo', '--size', copying.End(uri, '', str(keys)).address], capture_output=True,
                                             timeout=30).returncode == 0, 'the server')
        return uri

    def test_a_full_destination_is_no_space_and_the_copy_goes_on_when_there_is_room(self):
        pool = pathlib.Path(self.harness.arrays['b'].pools['fast'])
        mark = (pool / MARK).read_bytes()
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=72M', 'tmpfs', pool], check=True, timeout=30)
        self.addCleanup(subprocess.run, ['umount', '--lazy', pool], check=True, timeout=30)
        (pool / MARK).write_bytes(mark)                 # else it would be taken for another one
        self.harness.b.create('fast', 'thin', SIZE, MIGRATION)
        filler = pool / 'somebody-else'
        filler.write_bytes(bytes(60 * MIB))
        self.pair = (self.pair[0], copying.End(self.harness.b.export('fast', 'thin', 'thin', True).uri, 'thin'))
        error = self.assertRaises(exceptions.NoSpace, self.copying.copy, MIGRATION, *self.pair)
        self.assertIn('destination: No space left', str(error))
        self.assert_nothing_runs()
        filler.unlink()
        self.copying.copy(MIGRATION, *self.pair)
        self.copying.verify(MIGRATION, *self.pair, 'full')

    def test_an_array_that_says_nothing_is_given_up_and_gone_on_with(self):
        """Given an array that freezes in mid-copy, when patience is over, then that is an error; thawed, the copy goes on."""
        self.copying = copying.Copying(str(self.folder), patience=3.0)
        self.addCleanup(self.copying.stop)
        outcome = self.start(8 * MIB)
        self.wait_for(lambda: self.done() > 0, 'a record')
        self.harness.arrays['b'].process.send_signal(signal.SIGSTOP)
        self.wait_for(lambda: outcome, 'the end')
        error = self.assertRaises(exceptions.DriverError, self.copying.copy, MIGRATION, *self.pair)
        for each in (outcome[0], error):
            self.assertEqual('the copy stopped; neither end has answered for 3 s', str(each))
        self.harness.arrays['b'].process.send_signal(signal.SIGCONT)
        self.assertLess(self.copying.copy(MIGRATION, *self.pair)['bytes'], WRITTEN)
        self.assert_same()

    def test_an_agent_that_is_killed_takes_its_copier_along(self):
        """Given an agent that copies, on either kind of thread, when it is killed, then its copier ends and the next agent goes on."""
        for mode in ('eventlet', 'threading'):
            before, agent = self.done(), self.agent(mode, 4 * MIB)
            self.wait_for(lambda before=before: self.done() > before, 'a record')
            self.assertEqual(1, len(copiers(self.folder)))
            agent.send_signal(signal.SIGKILL)
            agent.wait()
            self.wait_for(lambda: not copiers(self.folder), 'the end of the copier', timeout=5.0)
        done = self.done()
        said = json.loads(self.agent('eventlet', 0).communicate(timeout=60)[0])
        self.assertEqual((WRITTEN - done, True), (said['bytes'], said['green']))
        self.assert_same()

    def test_the_hub_does_not_stand_still_while_it_copies(self):
        said = json.loads(self.agent('eventlet', 8 * MIB).communicate(timeout=60)[0])
        self.assertLess(said['longest'], said['seconds'] / 2)
        self.assert_same()

    def agent(self, mode, rate):
        process = subprocess.Popen([sys.executable, '-c', AGENT, str(self.folder), MIGRATION, *(end.uri for end in self.pair), str(rate)],
                                   stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, 'MIGRATOR_CONCURRENCY': mode})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        return process
