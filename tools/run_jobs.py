"""Run test jobs in the Python that runs this, and say at the end how they went. tools/test and tox call it.

    python tools/run_jobs.py [--full] [--only WORD] [JOB...]

Jobs: style, unit, unit-eventlet, functional, faults. --only takes of each job those checks or tests whose names match WORD, a regular
expression. Results are kept in .test-results, or where MIGRATOR_TEST_RESULTS says. Each job runs in a process group of its own, which
a watchdog ends if this process is killed; the servers that the tests started end with it.
"""
import argparse
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing

import subunit
import testtools

ROOT = pathlib.Path(__file__).resolve().parents[1]
SAMPLE = 'etc/migrator/migrator.conf.sample'
#: A busy machine is no failure: tests get twice their time before they are given up.
SLOW = {'MIGRATOR_TEST_TIMEOUT_SCALE': '2'}


class Job(typing.NamedTuple):
    """A job of tests.

    folder: of its tests. env: what its environment has besides. seconds: after which it is given up. workers: how many processes share
    its tests. A class stays in one process, and each process has servers and a lab of its own. without: tests that it leaves out,
    a regular expression. others: those of the second and each further worker, where it matters: regular expressions, of which the first
    that matches counts; the first worker has all that none matches.
    """

    folder: str
    env: dict
    seconds: int
    workers: int = 2
    without: str = ''
    others: tuple = ()


#: On green threads the model check would walk through the same states once more: it is pure, and knows nothing of threads.
#: stestr deals classes out in turn as long as it does not know how long they take. For functional tests, whose classes take
#: between a second and ten minutes, that is luck, so they are divided by what they are about: libvirt, the lab and the servers here, the
#: cloud and its parts there. So are the unit tests, of which the conductor's are the long ones: they wait for each other's threads more
#: than they compute, so that three processes are not too many for two processors. Each part takes about as long as the others.
UNIT = (r'^tests\.unit\.conductor\.test_(attest|volume)', r'^tests\.unit\.conductor\.test_(forget|manager|re|write)')
TEST_JOBS = {
    'unit': Job('tests/unit', {'MIGRATOR_CONCURRENCY': 'threading', **SLOW}, 1800, others=UNIT),
    'unit-eventlet': Job('tests/unit', {'MIGRATOR_CONCURRENCY': 'eventlet', **SLOW}, 1800,
                         without=r'^tests\.unit\.conductor\.test_model\.', others=UNIT),
    'functional': Job('tests/functional', SLOW, 5400, others=(r'^tests\.functional\.test_(lab|libvirt|rpc|services)',)),
    'faults': Job('tests/faults', SLOW, 2400),
}
STYLE_SECONDS = 600
#: How many lines of a failure are said once more at the end.
WHY_LINES = 30
#: How much longer a job may take under --full.
FULL_FACTOR = 3


class Watchdog:
    """Ends the process group of the running job when this process is no more, however it ended."""

    GRACE = 20.0

    def __init__(self):
        self._process = subprocess.Popen([sys.executable, __file__, '--watch'], stdin=subprocess.PIPE, start_new_session=True)

    def guard_caller(self):
        """From now on guard the process group that the caller leads: a job says so itself, lest it live unguarded for an instant."""
        os.write(self._process.stdin.fileno(), f'{os.getpid()}\n'.encode())

    def guard_none(self):
        """The job is over."""
        os.write(self._process.stdin.fileno(), b'0\n')

    def stop(self):
        """End the watchdog."""
        self._process.stdin.close()
        self._process.wait(self.GRACE + 10)

    @classmethod
    def watch(cls):
        """Be the watchdog: read groups until the other end of the pipe is closed."""
        group = 0
        for line in sys.stdin:
            group = int(line)
        end_group(group, cls.GRACE)


def end_group(group, grace, reap=lambda: None):
    """End a process group: ask, wait up to `grace` seconds, then kill. 0 stands for none. reap: collects a child that ended."""
    deadline = time.monotonic() + grace
    try:
        if group:
            os.killpg(group, signal.SIGTERM)
        while group and time.monotonic() < deadline:
            reap()
            os.killpg(group, 0)
            time.sleep(0.05)
        if group:
            os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return    # the whole group is gone


def run(watchdog, command, env=None, seconds=STYLE_SECONDS, **options):
    """Run a command from the project's root in a process group of its own; return its exit code, or 'timed out'."""
    environment = os.environ | {'PYTHONPATH': str(ROOT)} | (env or {})
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
                               preexec_fn=watchdog.guard_caller, **options)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f'not finished after {seconds} s'
    finally:
        if process.poll() is None:
            end_group(process.pid, 20.0, process.poll)
            process.wait()
        watchdog.guard_none()


# ---- style ----

def python(*args):
    return [sys.executable, *args]


def tool(name, *args):
    """A program of the same environment, whether or not that is in PATH."""
    beside = pathlib.Path(sys.executable).parent / name
    return [str(beside) if beside.exists() else name, *args]


def shell_scripts():
    """The project's bash scripts."""
    candidates = [path for folder in ('tools', '.ci') for path in sorted((ROOT / folder).iterdir()) if path.is_file()]
    return [str(path) for path in candidates if path.read_bytes().startswith(b'#!/bin/bash')]


def style_checks(scratch):
    """Return pairs of a name and the commands that must succeed one after another. scratch: a folder for what they write."""
    sample = f'{scratch}/sample'
    return (
        ('ruff', [tool('ruff', 'check')]),
        ('imports-sizes-names', [python('tools/check_style.py')]),
        ('shell', [['bash', '-n', script] for script in shell_scripts()]),
        ('sample', [tool('oslo-config-generator', '--config-file', 'etc/migrator/config-generator.conf', '--output-file', sample),
                    ['diff', '-u', SAMPLE, sample]]),
        ('diagrams', [python('tools/workflow_diagram.py', '--check')]),
        ('release-notes', [tool('reno', 'lint', '.')]),
        ('pre-commit', [tool('pre-commit', 'validate-config')]),
        ('requirements', [python('-m', 'pip', 'check')]),
        ('documentation', [tool('sphinx-build', '-W', '--keep-going', '-q', '-b', 'html', '-d', f'{scratch}/doctrees', 'doc/source',
                                'doc/build/html')]),
    )


def run_style(watchdog, only):
    """Run the checks; return their Counts. What a check prints is shown if it fails."""
    passed, failures = 0, []
    with tempfile.TemporaryDirectory(prefix='migrator-style-') as scratch:
        for name, commands in style_checks(scratch):
            if not re.search(only, name):
                continue
            start = time.monotonic()
            with tempfile.TemporaryFile() as output:
                codes = []
                for command in commands:
                    codes.append(run(watchdog, command, stdout=output, stderr=subprocess.STDOUT))
                    if codes[-1] != 0:
                        break
                good = not any(codes)
                print(f'{name} ... {"ok" if good else "FAILED"} ({time.monotonic() - start:.1f} s)', flush=True)
                if not good:
                    output.seek(0)
                    failures.append((name, output.read().decode(errors='replace')))
                    print(failures[-1][1], flush=True)
            passed += good
    return Counts(passed, len(failures), 0, tuple(failures))


# ---- tests ----

class Counts(typing.NamedTuple):
    """How the checks or tests of a job went. failures: pairs of a name and the end of what is known about why."""

    passed: int
    failed: int
    skipped: int
    failures: tuple


def count(stream):
    """Count the outcomes in a subunit stream. A test that did not end has failed."""
    totals, failures = {'passed': 0, 'failed': 0, 'skipped': 0}, []
    kinds = {'success': 'passed', 'xfail': 'passed', 'skip': 'skipped'}

    def one(test):
        if test['status'] == 'exists':
            return
        outcome = kinds.get(test['status'], 'failed')
        totals[outcome] += 1
        if outcome == 'failed':
            why = [content.as_text() for name, content in sorted(test['details'].items()) if name.startswith('traceback')]
            failures.append((test['id'], '\n'.join(why) or f'it is {test["status"]}'))

    result = testtools.StreamToDict(one)
    result.startTestRun()
    subunit.ByteStreamToStreamResult(io.BytesIO(stream), non_subunit_name='stdout').run(result)
    result.stopTestRun()
    return Counts(**totals, failures=tuple(failures))


def sharing(job, store):
    """Say to stestr how processes share a job's tests. store: a folder for a file that says it."""
    if job.workers == 1:
        return ['--serial']
    if not job.others:
        return ['--concurrency', str(job.workers)]
    # Each test is in one of them: the first has what matches none of `others`, and each of these what matches none before it.
    shares = [f'^(?!.*(?:{"|".join(job.others)}))']
    shares += [f'^(?!.*(?:{"|".join(job.others[:before])})).*(?:{one})' if before else one for before, one in enumerate(job.others)]
    path = store / 'workers.yaml'
    path.write_text(json.dumps([{'worker': [share]} for share in shares]))     # JSON is YAML, too
    return ['--worker-file', str(path)]


def run_tests(watchdog, job, only, named):
    """Run one job of tests with stestr; return its Counts. named: it was asked for by name, and must have a test that matches."""
    what = TEST_JOBS[job]
    seconds = what.seconds * (FULL_FACTOR if os.environ.get('MIGRATOR_TEST_FULL') == '1' else 1)
    store = pathlib.Path(os.environ.get('MIGRATOR_TEST_RESULTS', ROOT / '.test-results')) / job
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    stestr = [*tool('stestr'), '--repo-url', str(store), '--test-path', what.folder, '--top-dir', str(ROOT)]
    command = [*stestr, '--parallel-class', 'run', *sharing(what, store), '--slowest']
    command += ['--exclude-regex', what.without] if what.without else []
    code = run(watchdog, [*command, *([only] if only else [])], what.env, seconds)
    last = subprocess.run([*stestr, 'last', '--subunit'], cwd=ROOT, capture_output=True, timeout=120)
    counts = count(last.stdout)
    if only and not named and not (counts.passed or counts.failed or counts.skipped):
        print(f'no test here has {only!r} in its name', flush=True)
        return counts
    if not counts.failed and (code != 0 or counts.passed + counts.skipped == 0):
        why = f'stestr ended with {code}, {counts.passed} tests passed: counted as a failure'
        counts = counts._replace(failed=1, failures=((job, why),))
    return counts


def report(table):
    """Say how the jobs went; the failures come last, since of a long log it is the end that is looked at. table: (job, Counts, seconds)."""
    for job, counts, _seconds in table:
        for name, why in counts.failures:
            end = '\n'.join(f'    {line}' for line in why.strip().splitlines()[-WHY_LINES:])
            print(f'\nFAILED {job}: {name}\n{end}')
    print(f'\n{"job":<16}{"passed":>8}{"failed":>8}{"skipped":>8}{"seconds":>10}')
    for job, counts, seconds in table:
        print(f'{job:<16}{counts.passed:>8}{counts.failed:>8}{counts.skipped:>8}{seconds:>10.1f}')


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--full', action='store_true', help='try everything where tests take samples otherwise (MIGRATOR_TEST_FULL=1)')
    parser.add_argument('--only', metavar='WORD', default='', help='only checks and tests whose names match')
    parser.add_argument('--watch', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('jobs', nargs='*', metavar='JOB', help=f'style, {", ".join(TEST_JOBS)}; none: all')
    chosen = parser.parse_args()
    for job in chosen.jobs:
        if job != 'style' and job not in TEST_JOBS:
            parser.error(f'no job {job!r}; there are style, {", ".join(TEST_JOBS)}')
    return chosen


def stop(number, _frame):
    raise SystemExit(128 + number)


def main():
    """Run the jobs; return the exit code."""
    chosen = arguments()
    if chosen.watch:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Watchdog.watch()
        return 0
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    if chosen.full:
        os.environ['MIGRATOR_TEST_FULL'] = '1'
    watchdog, table = Watchdog(), []
    try:
        for job in chosen.jobs or ['style', *TEST_JOBS]:
            print(f'\n==== {job} ====', flush=True)
            start = time.monotonic()
            counts = run_style(watchdog, chosen.only) if job == 'style' else run_tests(watchdog, job, chosen.only, job in chosen.jobs)
            table.append((job, counts, time.monotonic() - start))
    finally:
        watchdog.stop()
    report(table)
    passed, failed, skipped = (sum(getattr(counts, what) for _job, counts, _seconds in table) for what in ('passed', 'failed', 'skipped'))
    nothing_skipped = skipped == 0 or os.environ.get('CI', '').lower() not in ('1', 'true', 'yes')
    if not nothing_skipped:
        print('skipped tests are an error in CI')
    print(f'{passed} passed, {failed} failed, {skipped} skipped', flush=True)
    return 0 if passed and not failed and nothing_skipped else 1


if __name__ == '__main__':
    sys.exit(main())
