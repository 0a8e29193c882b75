"""The lab leaves nothing behind: after down, after its builder was killed at any point, after its owner was killed."""
import errno
import json
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import tempfile
import threading

import fixtures
import testtools
from testtools.matchers import Contains

from tests.lab import network, processes, record
from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.processes import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Builds a lab to stay, and kills itself (SIGKILL) as the named thing is about to be made: a step, the note that all is well, or
# the n-th host that is told to live on.
KILLED_AT = """
import os, signal, sys
from tests.lab import host, lab, record
folder, point = sys.argv[1:]
def killing(owner, method, matches):
    original = getattr(owner, method)
    def wrapper(self, *arguments, **options):
        original(self, *arguments, **options)
        if matches(self, *arguments, **options):
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, method, wrapper)
killing(record.Record, 'step', lambda self, what: what == point)
killing(record.Record, 'begin', lambda self, **facts: point == 'begin')
killing(record.Record, 'write', lambda self, **facts: facts.get('state') == 'up' and point == 'written')
killing(host.Place, 'keep', lambda self: point == 'keep ' + self.name)
lab.Lab(folder).up(keep=True)
"""

OWNER = """
import sys, threading
from tests.lab.lab import Lab
lab = Lab(sys.argv[1], 1)
lab.up()
print('up', flush=True)
threading.Event().wait()
"""


class LabCase(testtools.TestCase):
    """A folder for a lab, and the look for what may remain of it. Labs that other tests build meanwhile do not clean up after these."""

    def setUp(self):
        """A folder for a lab, taken down whatever happens; and a registry, of which nothing may be left either."""
        super().setUp()
        registry = pathlib.Path('/run') / f'migrator-lab-{secrets.token_hex(3)}'
        self.patch(record, 'REGISTRY', registry)
        self.useFixture(fixtures.EnvironmentVariable('MIGRATOR_LAB_REGISTRY', str(registry)))
        self.addCleanup(lambda: registry.exists() and registry.rmdir())     # two that end at once leave it; it must be empty
        scratch = tempfile.TemporaryDirectory(prefix='mlab-test-')
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name) / 'lab'
        self.addCleanup(lambda: Lab(self.folder).down())

    def _mounts(self, pid):
        """The mounts that a process sees; none if it has ended, which the kernel tells in several ways."""
        try:
            return pathlib.Path(f'/proc/{pid}/mountinfo').read_text(errors='replace')
        except OSError as error:
            self.assertIn(error.errno, (errno.EINVAL, errno.ENOENT, errno.ESRCH, errno.EACCES), error)
            return ''

    def assert_nothing_left(self, folder=None, files=True):
        """No namespace's process, no mount, no link of the lab is there; with `files`, no file either."""
        folder = folder or self.folder
        identity = record.lab_id(folder)
        self.assertEqual({}, record.keepers(identity))
        self.assertFalse(network.link_exists(network.outside_link(identity)))
        for pid in processes.all_pids():
            self.assertFalse([word for word in processes.arguments(pid) if str(folder) in word], f'process {pid} is of the lab')
            self.assertNotIn(str(folder), self._mounts(pid))
        if files:
            self.assertFalse(folder.exists())
            self.assertEqual([], list(record.REGISTRY.glob(f'{identity}*')))


class LeftoverTest(LabCase):
    """Nothing of a lab remains: no process, mount, link, or file."""

    def _script(self, code, *arguments, **options):
        return subprocess.Popen([sys.executable, '-c', code, *map(str, arguments)], cwd=ROOT, text=True, **options)

    def _kill_at(self, point):
        builder = self._script(KILLED_AT, self.folder, point, stderr=subprocess.PIPE)
        words = builder.communicate(timeout=60)[1]
        self.assertEqual(-signal.SIGKILL, builder.returncode, words)

    def test_killed_at_each_point_then_down(self):
        """Given a builder that is killed at any point of `up`, when the lab is taken down, nothing is left."""
        for point in ('begin', 'svc', 'link', 'host alpha', 'host beta', 'guest', 'libvirtd beta', 'written', 'keep svc', 'keep alpha'):
            with self.subTest(point):
                self._kill_at(point)
                self.assertTrue(self.folder.exists())
                self.assertNotEqual('up', Lab(self.folder).status()['state'])
                Lab(self.folder).down()
                self.assert_nothing_left()

    def test_the_kernel_takes_down_what_a_killed_builder_made(self):
        """Given a builder that was killed before the end, its hosts end without anybody's doing."""
        self._kill_at('libvirtd beta')
        identity = record.lab_id(self.folder)
        wait_until(lambda: not record.keepers(identity) and not network.link_exists(network.outside_link(identity)), 20, 'end of the lab')
        self.assert_nothing_left(files=False)

    def test_killed_and_started_again(self):
        """Given a builder that was killed when some hosts had been told to stay, when the lab is built again, it works as new."""
        self._kill_at('keep svc')
        self.assertIn('svc', record.keepers(record.lab_id(self.folder)))
        lab = Lab(self.folder).up(keep=True)
        for host in lab.hosts.values():
            self.assertEqual(host.libvirt_name, host.virsh('hostname').strip())
        self.assertEqual('up', lab.status()['state'])
        lab.down()
        self.assert_nothing_left()

    def test_another_lab_cleans_up(self):
        """Given a lab whose builder was killed, when a lab is built in another folder, the dead one's files are gone and the lab works."""
        self._kill_at('keep alpha')
        with tempfile.TemporaryDirectory(prefix='mlab-test-') as other:
            lab = Lab(other, 1).up()
            self.addCleanup(lab.down)
            self.assert_nothing_left()
            self.assertEqual('alpha.lab', lab.host('alpha').virsh('hostname').strip())
            lab.down()
            self.assert_nothing_left(pathlib.Path(other))
            pathlib.Path(other).mkdir()                              # for the with-block to remove

    def test_a_lab_that_was_left_up_is_not_cleaned(self):
        """Given a lab that was left up on purpose, when another one is built next to it, both live, on subnets of their own."""
        kept = Lab(self.folder, 1).up(keep=True)
        with tempfile.TemporaryDirectory(prefix='mlab-test-') as other:
            lab = Lab(other, 1).up()
            self.addCleanup(lab.down)
            self.assertNotEqual(kept.subnet, lab.subnet)
            self.assertEqual('up', kept.status()['state'])
            self.assertEqual(0, kept.host('alpha').run(['virsh', 'version']).returncode)
            lab.down()
            pathlib.Path(other).mkdir()
        kept.down()
        self.assert_nothing_left()

    def test_owner_killed(self):
        """Given a test process that owns a lab with a running program, when it is killed, the lab's processes end by themselves."""
        owner = self._script(OWNER, self.folder, stdout=subprocess.PIPE)
        self.addCleanup(owner.stdout.close)
        self.assertEqual('up\n', owner.stdout.readline())
        self.assertTrue(Lab(self.folder).status()['in_use'])
        self.assertRaises(LabError, Lab(self.folder).down)           # it is in use
        self.assertRaises(LabError, Lab(self.folder).up)
        owner.kill()
        owner.wait(10)
        wait_until(lambda: not record.keepers(record.lab_id(self.folder)), 20, 'end of the lab')
        Lab(self.folder).down()
        self.assert_nothing_left()

    def test_a_failed_up_leaves_nothing(self):
        """Given a host that cannot be made, `up` says why, and nothing is left."""
        lab = Lab(self.folder)
        original = lab._places

        def places(subnet):
            original(subnet)
            lab.hosts['beta'].create = lambda: lab.hosts['beta'].run(['false'])
        lab._places = places
        self.assertRaises(LabError, lab.up)
        self.assert_nothing_left()

    def test_down_twice_and_without_up(self):
        """Given no lab, or one that was taken down, `down` is harmless."""
        Lab(self.folder).down()
        lab = Lab(self.folder, 1).up()
        lab.down()
        lab.down()
        self.assert_nothing_left()


class CommandTest(LabCase):
    """tools/lab as an operator uses it."""

    def _lab(self, *words, folder=None):
        env = {**os.environ, 'MIGRATOR_PYTHON': sys.executable}
        return subprocess.run([ROOT / 'tools' / 'lab', '--folder', folder or self.folder, *words], env=env, capture_output=True, text=True,
                              timeout=120)

    def test_up_status_run_down(self):
        """up, up again, status in words and as JSON, a program in a host, down: each says what it did by words and exit code."""
        self.assertEqual(3, self._lab('status').returncode)
        up = self._lab('up', '--hosts', '1')
        self.assertEqual(0, up.returncode, up.stderr)
        again = self._lab('up', '--hosts', '1')
        self.assertEqual((0, up.stdout), (again.returncode, again.stdout))
        self.assertThat(up.stdout, Contains('alpha.lab'))
        status = json.loads(self._lab('status', '--json').stdout)
        self.assertEqual(('up', ['alpha'], ['rabbitmq']),
                         (status['state'], [host['name'] for host in status['hosts']], list(status['services'])))
        self.assertEqual('alpha.lab\n', self._lab('run', 'alpha', 'hostname').stdout)
        self.assertEqual(7, self._lab('run', 'svc', 'sh', '-c', 'exit 7').returncode)
        other = self._lab('up', '--hosts', '2')
        self.assertEqual(1, other.returncode)
        self.assertEqual(1, len(other.stderr.splitlines()), other.stderr)
        logs = self.folder.parent / 'logs'
        self.assertEqual(0, self._lab('down', '--save-logs', logs).returncode)
        self.assertTrue((logs / 'log' / 'rabbitmq.log').exists())
        self.assertTrue((logs / 'hosts' / 'alpha' / 'log' / 'libvirtd.log').exists())
        self.assertEqual(3, self._lab('status').returncode)
        self.assert_nothing_left()

    def test_a_foreign_folder(self):
        """Given a folder with somebody's files, up refuses in one line, down does nothing, and the files stay."""
        with tempfile.TemporaryDirectory() as mine:
            precious = pathlib.Path(mine) / 'hosts'
            precious.mkdir()
            (precious / 'file').write_text('precious')
            up = self._lab('up', folder=mine)
            self.assertEqual((1, 1), (up.returncode, len(up.stderr.splitlines())), up.stderr)
            self.assertEqual(0, self._lab('down', folder=mine).returncode)
            self.assertEqual('precious', (precious / 'file').read_text())
            self.assertEqual([], list(record.REGISTRY.glob(f'{record.lab_id(mine)}*')))

    def test_broken_is_said(self):
        """Given a lab of which a host ended, status says so with exit code 3, and up builds it again."""
        lab = Lab(self.folder, 1).up(keep=True)
        lab.host('alpha').crash()
        status = self._lab('status')
        self.assertEqual(3, status.returncode)
        self.assertThat(status.stdout, Contains('broken'))
        self.assertEqual(0, self._lab('up', '--hosts', '1', '--no-broker').returncode)
        self.assertEqual(0, self._lab('status').returncode)

    def test_interrupted(self):
        """Given an operator who presses Ctrl-C while the lab is built, nothing is left."""
        env = {**os.environ, 'MIGRATOR_PYTHON': sys.executable}
        up = subprocess.Popen([ROOT / 'tools' / 'lab', '--folder', self.folder, 'up'], env=env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, start_new_session=True)
        self.addCleanup(up.stderr.close)
        wait_until(lambda: 'alpha' in record.keepers(record.lab_id(self.folder)), 20, 'start of alpha')
        os.killpg(up.pid, signal.SIGINT)
        self.assertEqual(1, up.wait(30))
        self.assert_nothing_left()

    def test_two_at_once_in_one_folder(self):
        """Given two builders in the same folder at the same time, one builds and the other is refused or finds the lab standing."""
        results = []
        threads = [threading.Thread(target=lambda: results.append(self._lab('up', '--no-broker', '--hosts', '1'))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertIn(0, [result.returncode for result in results])
        for result in results:
            if result.returncode:
                self.assertThat(result.stderr, Contains('another process'))
        self.assertEqual(0, self._lab('status').returncode)
