"""Threads, green or native. The same tests run here on plain threads, and in a child process under eventlet, together with those of what
is built on them.
"""
import os
import pathlib
import subprocess
import sys
import threading
import time

import testtools

from migrator import concurrency

ROOT = pathlib.Path(__file__).resolve().parents[2]


class HandleTest(testtools.TestCase):

    def test_it_gives_the_result_or_raises_the_error(self):
        self.assertEqual(7, concurrency.spawn(lambda a, b: a + b, 3, b=4).wait(5))
        self.assertRaises(KeyError, concurrency.spawn({}.__getitem__, 'x').wait, 5)

    def test_waiting_has_a_limit_and_can_be_taken_up_again(self):
        go = threading.Event()
        handle = concurrency.spawn(go.wait, 5)
        self.assertRaises(TimeoutError, handle.wait, 0.01)
        self.assertFalse(handle.done)
        go.set()
        self.assertTrue(handle.wait(5))


class PoolTest(testtools.TestCase):

    def test_a_full_pool_refuses_and_has_room_again(self):
        pool, go = concurrency.Pool(2), threading.Event()
        self.assertEqual([True, True, False], [pool.try_spawn(go.wait, 5) for _ in range(3)])
        self.assertEqual(2, pool.running)
        self.assertFalse(pool.wait_all(0.01))
        go.set()
        self.assertTrue(pool.wait_all(5))
        self.assertEqual(0, pool.running)
        self.assertTrue(pool.try_spawn(lambda: None))

    def test_what_is_queued_runs_in_turn_and_before_what_may_be_refused(self):
        pool, go, done = concurrency.Pool(1), threading.Event(), []
        self.assertTrue(pool.queue(go.wait, 5))
        self.assertEqual([True, True], [pool.queue(done.append, number) for number in (1, 2)])
        self.assertFalse(pool.try_spawn(done.append, 3))
        self.assertEqual([], done)
        go.set()
        self.assertTrue(pool.wait_all(5))
        self.assertEqual([1, 2], done)

    def test_an_error_does_not_keep_back_what_waits(self):
        pool, go, seen, done = concurrency.Pool(1), threading.Event(), [], []
        before, threading.excepthook = threading.excepthook, lambda args: seen.append(args.exc_type)
        self.addCleanup(setattr, threading, 'excepthook', before)
        pool.queue(go.wait, 5)
        pool.queue({}.__getitem__, 'x')
        pool.queue(done.append, 1)
        go.set()
        self.assertTrue(pool.wait_all(5))
        self.assertEqual(([KeyError], [1]), (seen, done))

    def test_an_error_gives_the_place_back(self):
        pool = concurrency.Pool(1)
        seen = []
        before, threading.excepthook = threading.excepthook, lambda args: seen.append(args.exc_type)
        self.addCleanup(setattr, threading, 'excepthook', before)
        pool.try_spawn({}.__getitem__, 'x')
        self.assertTrue(pool.wait_all(5))


class NativeTest(testtools.TestCase):

    def test_a_blocking_call_gives_its_result_or_error(self):
        self.assertEqual(5, concurrency.run_native(max, 5, 3))
        self.assertRaises(ZeroDivisionError, concurrency.run_native, divmod, 1, 0)

    def test_blocking_calls_do_not_wait_for_each_other_nor_hold_up_others(self):
        began = time.monotonic()
        blocked = [concurrency.spawn(concurrency.run_native, concurrency.native_sleep, 0.3) for _ in range(40)]
        ticks = 0
        while not all(handle.done for handle in blocked):
            time.sleep(0.005)
            ticks += 1
        self.assertLess(time.monotonic() - began, 5)
        self.assertGreater(ticks, 5)

    def test_a_native_call_within_one_is_a_direct_call(self):
        self.assertEqual(3, concurrency.run_native(concurrency.run_native, max, 3, 1))

    def test_programs_can_be_run_and_timed_out_in_native_threads(self):
        done = concurrency.run_native(lambda: subprocess.run(['echo', 'x'], capture_output=True, timeout=10, check=True))
        self.assertEqual(b'x\n', done.stdout)
        self.assertRaises(subprocess.TimeoutExpired, concurrency.run_native,
                          lambda: subprocess.run(['sleep', '10'], timeout=0.1, check=True))

    def test_native_threads_signal_each_other_and_hand_over(self):
        event, line, lock = concurrency.native_event(), concurrency.native_queue(), concurrency.native_lock()

        def give():
            with lock:
                line.put('word')
            event.set()
        concurrency.native_thread(give)
        self.assertTrue(concurrency.run_native(event.wait, 5))
        self.assertEqual('word', line.get_nowait())


class SetupTest(testtools.TestCase):

    def child(self, code, *options, **environment):
        return subprocess.run([sys.executable, *options, '-c', code], cwd=ROOT, env=os.environ | environment, capture_output=True,
                              text=True, timeout=60)

    def test_eventlet_is_the_default_and_says_nothing(self):
        done = self.child('from migrator import concurrency as c; print(c.setup(), c.is_green(), c.setup())', '-W', 'error',
                          MIGRATOR_CONCURRENCY='')
        self.assertEqual(('eventlet True eventlet\n', ''), (done.stdout, done.stderr))

    def test_threading_leaves_everything_as_it_is(self):
        done = self.child('import sys; from migrator import concurrency as c; print(c.setup(), c.is_green(), "eventlet" in sys.modules)',
                          '-W', 'error', MIGRATOR_CONCURRENCY='threading')
        self.assertEqual(('threading False False\n', ''), (done.stdout, done.stderr))

    def test_an_unknown_model_is_refused(self):
        self.assertIn('must be eventlet or threading', self.child('from migrator import concurrency as c; c.setup()',
                                                                  MIGRATOR_CONCURRENCY='asyncio').stderr)

    def test_a_process_ends_although_a_native_call_does_not(self):
        done = self.child('from migrator import concurrency as c; c.setup(); import time\n'
                          'c.spawn(c.run_native, c.native_sleep, 300); time.sleep(0.2)', MIGRATOR_CONCURRENCY='eventlet')
        self.assertEqual((0, ''), (done.returncode, done.stderr))

    def test_greenlets_and_native_threads_can_log_at_once(self):
        done = self.child("""
from migrator import concurrency
concurrency.setup()
import logging, time
from migrator import config
config.setup([], 'test', default_config_files=[])
def talk(who):
    for n in range(200):
        logging.getLogger(f'migrator.{who}.{n}').warning('words')
native = [concurrency.spawn(concurrency.run_native, talk, n) for n in range(4)]
for n in range(200):
    logging.getLogger('migrator.green').warning('words')
    time.sleep(0)
for handle in native:
    handle.wait(30)
""", MIGRATOR_CONCURRENCY='eventlet')
        self.assertEqual(1000, done.stdout.count('words') + done.stderr.count('words'), done.stderr[-2000:])


class EventletTest(testtools.TestCase):

    def test_the_same_holds_under_eventlet(self):
        names = ['tests.unit.test_concurrency.HandleTest', 'tests.unit.test_concurrency.PoolTest', 'tests.unit.test_concurrency.NativeTest',
                 'tests.unit.rpc.test_journal', 'tests.unit.rpc.test_agent', 'tests.unit.compute.test_manager',
                 'tests.unit.compute.test_heartbeat', 'tests.unit.compute.test_service']
        code = ("from migrator import concurrency; concurrency.setup('eventlet'); import sys; from testtools.run import main; "
                "main(['run', *sys.argv[1:]], sys.stdout)")
        done = subprocess.run([sys.executable, '-c', code, *names], cwd=ROOT, capture_output=True, text=True, timeout=180)
        self.assertEqual(0, done.returncode, done.stdout[-5000:] + done.stderr[-5000:])
        self.assertRegex(done.stdout, r'Ran [6-9][0-9]|Ran [1-9][0-9][0-9]')
