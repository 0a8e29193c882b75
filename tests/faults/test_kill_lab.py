"""Kill any daemon at any line of a live migration with real hypervisors, start it again, and find one running guest, whole and alone.

The lines are those of `matrix`, as with simulated hypervisors (test_kill_simulated.py), but guests, disks and hosts are real: after each
death libvirt itself, QEMU's processes, the disk's records and the guest's ticks are asked. One guest goes through all cases of a class,
so that what any of them loses is noticed. A copy is held to a bandwidth, so that it takes a second or two.

All cases run with MIGRATOR_TEST_FULL=1 (`tools/test --full`); otherwise a sample, another one each day. MIGRATOR_TEST_SEED chooses one.
"""
import contextlib
import datetime
import os
import random
import signal
import sys
import threading

from migrator import exceptions
from migrator.states import Status
from tests.cloud_case import CloudCase
from tests.faults import matrix
from tests.faults.matrix import FAILS
from tests.faults.outage_case import DATABASE, on_postgresql
from tests.functional.libvirt_harness import emulator

SEED = os.environ.get('MIGRATOR_TEST_SEED') or datetime.datetime.now(datetime.UTC).date().isoformat()
FULL = os.environ.get('MIGRATOR_TEST_FULL') == '1'
#: How many agents' and how many conductors' cases a sample has.
SAMPLE = 12
#: MiB a second. A guest has some 90 MiB to copy, and a disk of 48 MiB.
BANDWIDTH, SLOW_BANDWIDTH = 80, 8


def sample(cases):
    """Choose the cases of this run."""
    cases = list(cases)
    return cases if FULL else sorted(random.Random(SEED).sample(cases, min(SAMPLE, len(cases))))


class KillCase(CloudCase):
    """A cloud of armed daemons, and one guest that goes through all of it."""

    arguments = {'arm': True}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        sys.stderr.write(f'{cls.__name__}: {"all cases" if FULL else f"sample of MIGRATOR_TEST_SEED={SEED}"}\n')

    def case(self, course, point, key, victim):
        """Run one case. victim: gives the daemon's name from (source, destination)."""
        guest, here, there = self.standing()
        who = victim(here, there)
        self.cloud.wait_hosts_up()
        self.cloud.kill_at(point, key, who)
        with self.asked(guest, there, SLOW_BANDWIDTH if course == FAILS else BANDWIDTH):
            if course == FAILS:
                self.break_copy(guest, here, there)
            self.assertEqual(who, self.cloud.await_death())
            self.cloud.restart(who)
        ended = self.cloud.ended(self.api.live_migrate(guest.uuid, there, request_id=self.request, options=self.options))
        self.check_course(course, point, key, ended)
        self.assert_outcome(ended, guest, there if ended['status'] == Status.COMPLETED else here, ended['status'], silence=5.0)
        self.assert_nothing_leaked()
        found = self.api.list({'instance': guest.uuid, 'kind': 'live_migration'})
        self.assertEqual([ended['id']], [m['id'] for m in found if m['request_id'] == self.request], 'one request, one migration')

    @contextlib.contextmanager
    def asked(self, guest, there, bandwidth):
        """Ask for the migration in a thread: whoever is killed may be the one who should answer, so no answer is as good as one."""
        self.request = f'once-{guest.uuid}-{self.id()}-{random.random()}'[-100:]
        self.options = {'bandwidth_mib': bandwidth}

        def ask():
            with contextlib.suppress(exceptions.Unavailable):
                self.api.live_migrate(guest.uuid, there, request_id=self.request, options=self.options)
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        yield
        asking.join(60)

    def break_copy(self, guest, here, there):
        """Kill the destination's QEMU in mid-copy."""
        self.cloud.await_copying(guest, here)
        os.kill(self.wait_for(lambda: emulator(self.lab.host(there), guest.uuid), 'the incoming emulator'), signal.SIGKILL)

    def check_course(self, course, point, key, ended):
        """A death changes the course only where the work of the dead cannot be known or the check went unanswered."""
        if course == FAILS:
            self.assertEqual(Status.FAILED, ended['status'], ended)
        elif key.startswith('check_can') or (key == 'live_migration' and point in ('accepted', 'begun')):
            self.assertIn(ended['status'], (Status.COMPLETED, Status.FAILED), ended)
        else:
            self.assertEqual(Status.COMPLETED, ended['status'], ended)


def add_agent_cases(cls):
    """Make a test of the lines at which an agent may die."""
    cases = [(course, role.value, point, key) for course, role, point, key in matrix.agent_cases()]
    for course, role, point, key in sample(cases):
        def test(self, course=course, role=role, point=point, key=key):
            self.case(course, point, key, lambda here, there: here if role == 'source' else there)
        setattr(cls, 'test_agent_' + matrix.name_of(course, role, point, key), test)
    return cls


def add_conductor_cases(cls):
    """Make a test of the lines at which the conductor may die."""
    for course, point, key in sample(matrix.conductor_cases()):
        def test(self, course=course, point=point, key=key):
            self.case(course, point, key, lambda _here, _there: 'conductor-0')
        setattr(cls, 'test_conductor_' + matrix.name_of(course, point, key), test)
    return cls


@add_agent_cases
@add_conductor_cases
class TestKillInLab(KillCase):
    """Every line of the table, on MariaDB."""

    arguments = {'arm': True, 'database': 'mysql'}


class TestDeathsInMidCopy(CloudCase):
    """What dies while the hypervisors copy, and comes back; libvirtd is among it."""

    arguments = {'database': DATABASE}

    def test_the_sources_agent(self):
        """Given an agent that is killed in mid-copy, the job goes on in libvirt, and the migration completes when the agent is back."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=16) as migration:
            self.cloud.daemons[here].kill()
            self.cloud.restart(here)
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, there)

    def test_the_sources_agent_for_longer_than_the_job(self):
        """Given an agent that stays away until libvirt has moved the guest, the migration completes when the agent is back."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=20) as migration:
            self.cloud.daemons[here].kill()
            self.wait_for(lambda: self.cloud.where(guest) == {there: 'running'}, 'libvirt has moved it', 60)
            self.cloud.restart(here)
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, there)

    def test_the_destinations_agent(self):
        """Given the destination's agent is killed in mid-copy and comes back, nothing is lost by it."""
        guest, _here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=16) as migration:
            self.cloud.daemons[there].kill()
            self.cloud.restart(there)
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, there)

    def test_every_daemon_at_once(self):
        """Given all daemons of the cloud are killed in mid-copy, when they are back, the migration ends as libvirt's job did."""
        guest, _here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=16) as migration:
            for daemon in self.cloud.daemons.values():
                daemon.kill()
            self.cloud.restart_dead()
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, there)

    def test_the_sources_agent_while_it_is_aborted(self):
        """Given an abort that is asked for while the source's agent is dead, it is carried out when the agent is back."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            self.cloud.daemons[here].kill()
            self.api.abort(migration['id'])
            self.cloud.restart(here)
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, here, Status.CANCELLED)

    def test_the_destinations_emulator(self):
        """Given the destination's QEMU dies in mid-copy, the guest goes on where it was, and can be moved afterwards."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            os.kill(self.wait_for(lambda: emulator(self.lab.host(there), guest.uuid), 'the incoming emulator'), signal.SIGKILL)
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, here, Status.FAILED)
        self.assert_outcome(self.cloud.migrate(guest, there), guest, there)

    def libvirtd_dies(self, guest, migration, name):
        """Kill libvirtd of a host, start it again, and give the migration's end and where libvirt has the guest then."""
        host = self.lab.host(name)
        host.kill_libvirtd()
        host.start_libvirtd()
        host.wait_ready()
        return self.cloud.ended(migration)

    def test_the_sources_libvirtd(self):
        """Given the source's libvirtd dies in mid-copy, the guest goes on where it was, and can be moved once all is back."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            ended = self.libvirtd_dies(guest, migration, here)
        self.assert_outcome(ended, guest, here, Status.FAILED)
        self.assert_outcome(self.cloud.migrate(guest, there), guest, there)

    def test_the_destinations_libvirtd(self):
        """Given the destination's libvirtd dies in mid-copy, the guest goes on where it was, and can be moved once all is back."""
        guest, here, there = self.standing()
        with self.copying(guest, there) as migration:
            ended = self.libvirtd_dies(guest, migration, there)
        self.assert_outcome(ended, guest, here, Status.FAILED)
        self.assert_outcome(self.cloud.migrate(guest, there), guest, there)


if FULL:
    TestDeathsInMidCopyOnPostgreSQL = on_postgresql(TestDeathsInMidCopy)
