"""The runner of tests: what it counts, what it calls a failure, and that a killed runner takes its job along."""
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

from tests import base

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _load():
    """tools/ is no package."""
    spec = importlib.util.spec_from_file_location('run_jobs', ROOT / 'tools/run_jobs.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RunTestsCase(base.TestCase):
    """Each test runs a small project's tests for real."""

    def setUp(self):
        super().setUp()
        self.run_jobs = _load()
        self.patch(self.run_jobs, 'ROOT', self.temp_dir)
        self.patch(self.run_jobs, 'TEST_JOBS', {'sample': self.run_jobs.Job('sample', {'SAMPLE': 'given'}, 40, workers=1)})
        self.watchdog = self.run_jobs.Watchdog()
        self.addCleanup(self.watchdog.stop)
        (self.temp_dir / 'sample').mkdir()
        (self.temp_dir / 'sample/__init__.py').touch()

    def job(self, **changes):
        """Run the sample in another way."""
        self.run_jobs.TEST_JOBS['sample'] = self.run_jobs.TEST_JOBS['sample']._replace(**changes)

    def run_sample(self, body, only='', named=True):
        code = f'import os, sys, unittest\nclass Case(unittest.TestCase):\n{textwrap.indent(textwrap.dedent(body), "    ")}'
        (self.temp_dir / 'sample/test_sample.py').write_text(code)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(('OS_', 'PYTHON', 'MIGRATOR_'))}
        self.patch(os, 'environ', environment)
        reports, writer = os.pipe()
        with os.fdopen(reports) as output:
            saved = os.dup(1)
            os.dup2(writer, 1)
            os.close(writer)
            try:
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    counts = self.run_jobs.run_tests(self.watchdog, 'sample', only, named)
            finally:
                os.dup2(saved, 1)
                os.close(saved)
            self.addDetail('runner', base.testtools.content.text_content(output.read()))
        self.failures = dict(counts.failures)
        return counts[:3], said.getvalue()

    def test_passed_failed_and_skipped_are_counted(self):
        counts, _ = self.run_sample("""
            def test_good(self): self.assertEqual('given', os.environ['SAMPLE'])
            def test_too(self): pass
            def test_bad(self): self.fail()
            def test_error(self): 1 / 0
            @unittest.skip('later')
            def test_skipped(self): pass
        """)
        self.assertEqual((2, 2, 1), counts)
        self.assertEqual({'sample.test_sample.Case.test_bad', 'sample.test_sample.Case.test_error'}, set(self.failures))
        self.assertIn('ZeroDivisionError', self.failures['sample.test_sample.Case.test_error'])

    def test_only_some(self):
        self.assertEqual((1, 0, 0), self.run_sample('def test_good(self): pass\ndef test_bad(self): self.fail()', 'test_go')[0])

    def test_what_a_job_leaves_out_is_not_run(self):
        self.job(without='test_b')
        self.assertEqual((1, 0, 0), self.run_sample('def test_good(self): pass\ndef test_bad(self): self.fail()')[0])

    def test_workers_share_what_there_is_and_their_counts_add_up(self):
        """Given tests of which some modules are for the second and the third worker, then each runs once, in the process that it is for."""
        self.job(workers=3, others=(r'^sample\.test_(other|more)', r'^sample\.test_(last|more)'))
        write = "print('{0}', os.getpid(), file=open('{1}', 'a'))"
        code = f'import os, unittest\nclass Case(unittest.TestCase):\n    def test_it(self): {write}\n'
        said = self.temp_dir / 'said'
        for name in ('another', 'last', 'more', 'other'):
            (self.temp_dir / f'sample/test_{name}.py').write_text(code.format(name, said))
        counts, _ = self.run_sample(f"""
            def test_good(self): {write.format('sample', said)}
            def test_bad(self): self.fail()
        """)
        self.assertEqual((5, 1, 0), counts)
        processes = dict(line.split() for line in said.read_text().splitlines())
        self.assertEqual(5, len(said.read_text().splitlines()))
        self.assertEqual((processes['another'], processes['other']), (processes['sample'], processes['more']))
        self.assertEqual(3, len({processes[name] for name in ('another', 'other', 'last')}))

    def test_only_some_of_one_worker(self):
        self.job(workers=2, others=(r'^sample\.test_other',))
        self.assertEqual((1, 0, 0), self.run_sample('def test_good(self): pass\ndef test_bad(self): self.fail()', 'test_go')[0])

    def test_no_test_is_a_failure(self):
        counts, _ = self.run_sample('def not_a_test(self): pass')
        self.assertEqual((0, 1, 0), counts)
        self.assertIn('counted as a failure', self.failures['sample'])

    def test_no_test_that_matches(self):
        """Given a word that no test of a job has, then that is a failure if this job was asked for, and none if all were."""
        for named in (True, False):
            counts, _ = self.run_sample('def test_good(self): pass', 'test_bad', named)
            self.assertEqual((0, int(named), 0), counts)

    def test_a_module_that_cannot_be_imported_is_a_failure(self):
        (self.temp_dir / 'sample/test_other.py').write_text('import there_is_no_such_module\n')
        self.assertEqual(1, self.run_sample('def test_good(self): pass')[0][1])

    def test_a_test_process_that_dies_is_a_failure(self):
        passed, failed, _ = self.run_sample('def test_a(self): pass\ndef test_b(self): os._exit(3)\ndef test_c(self): pass')[0]
        self.assertEqual(1, passed)
        self.assertEqual(1, failed)

    def test_a_job_that_takes_too_long_is_a_failure(self):
        self.job(seconds=3)
        counts, _ = self.run_sample('def test_a(self):\n    import time\n    time.sleep(50)')
        self.assertEqual((0, 1), counts[:2])
        self.assertIn('not finished after 3 s', ' '.join(self.failures.values()))


class ClosingLineCase(base.TestCase):
    def said(self, counts, failures=(), **environment):
        run_jobs = _load()
        self.patch(run_jobs, 'TEST_JOBS', {'one': None})
        self.patch(run_jobs, 'run_tests', lambda *_: run_jobs.Counts(*counts, failures))
        self.patch(run_jobs, 'run_style', lambda *_: run_jobs.Counts(1, 0, 0, ()))
        self.patch(run_jobs.signal, 'signal', lambda *_: None)
        self.patch(sys, 'argv', ['run_jobs.py'])
        self.patch(os, 'environ', {key: value for key, value in os.environ.items() if key != 'CI'} | environment)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = run_jobs.main()
        return code, said.getvalue().splitlines()

    def result(self, counts, **environment):
        code, lines = self.said(counts, **environment)
        return code, lines[-1]

    def test_failures_are_said_once_more_at_the_end(self):
        """Given a failure with a long story, then its name and the end of the story stand right above the table."""
        _, lines = self.said((3, 1, 0), (('sample.test_bad', '\n'.join(f'line {number}' for number in range(100))),))
        start = lines.index('FAILED one: sample.test_bad')
        self.assertEqual('    line 99', lines[start + 30])
        self.assertEqual('    line 70', lines[start + 1])
        self.assertLess(len(lines) - start, 40)

    def test_all_jobs_together(self):
        self.assertEqual((0, '4 passed, 0 failed, 0 skipped'), self.result((3, 0, 0)))
        self.assertEqual((1, '4 passed, 1 failed, 0 skipped'), self.result((3, 1, 0)))

    def test_skipped_tests_are_an_error_in_ci_only(self):
        self.assertEqual((0, '4 passed, 0 failed, 2 skipped'), self.result((3, 0, 2)))
        self.assertEqual((1, '4 passed, 0 failed, 2 skipped'), self.result((3, 0, 2), CI='true'))

    def test_an_unknown_job_is_refused(self):
        result = subprocess.run([sys.executable, ROOT / 'tools/run_jobs.py', 'untic'], capture_output=True, text=True, timeout=50)
        self.assertEqual(2, result.returncode)
        self.assertIn("no job 'untic'", result.stderr)


class KilledCase(base.TestCase):
    CODE = """
import importlib.util, json, os, subprocess, sys
spec = importlib.util.spec_from_file_location('run_jobs', sys.argv[1])
run_jobs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_jobs)
for number in (run_jobs.signal.SIGINT, run_jobs.signal.SIGTERM):
    run_jobs.signal.signal(number, run_jobs.stop)
job = 'sleep 300 & echo $!; wait'
run_jobs.run(run_jobs.Watchdog(), ['bash', '-c', job])
"""

    def _check(self, number):
        runner = subprocess.Popen([sys.executable, '-c', self.CODE, ROOT / 'tools/run_jobs.py'], stdout=subprocess.PIPE)
        self.addCleanup(runner.stdout.close)
        self.addCleanup(runner.wait, 10)
        self.addCleanup(runner.kill)
        grandchild = pathlib.Path(f'/proc/{json.loads(runner.stdout.readline())}/status')
        self.assertTrue(grandchild.exists())
        runner.send_signal(number)
        self.wait_for(lambda: not grandchild.exists() or 'State:\tZ' in grandchild.read_text(), 'the job to end with its runner')

    def test_a_job_ends_with_its_killed_runner(self):
        self._check(signal.SIGKILL)

    def test_a_job_ends_with_its_terminated_runner(self):
        self._check(signal.SIGTERM)

    def test_a_job_ends_with_its_interrupted_runner(self):
        self._check(signal.SIGINT)
