"""One of two conductors is killed while up to 1,000 migrations are in flight; the other one goes on with all that the dead one held.

Waiting workflows have no owner, so a death concerns only those that are being worked on. The jobs of the simulated hypervisors therefore
end in a steady stream, as fast as two processors can follow, and a good number of them at once; in the midst of that a conductor is
stopped, again and again, until it is one that holds claims: transitions that it has committed and whose message has not arrived. That one
is killed. What is measured is recovery, not how long a thousand migrations take that all end in the same second.
MIGRATOR_TEST_TAKEOVER sets another number of migrations.
"""
import collections
import concurrent.futures
import datetime
import itertools
import os
import re
import signal
import sys
import time
import uuid

import fixtures
import sqlalchemy as sa

from migrator.conductor.cursor import Phase
from migrator.conductor.db import tables
from migrator.states import TERMINAL, GuestState, Status
from tests import services
from tests.cluster import Cluster
from tests.soak import rules, watch

FULL = os.environ.get('MIGRATOR_TEST_FULL') == '1'
MIGRATIONS = int(os.environ.get('MIGRATOR_TEST_TAKEOVER') or (1000 if FULL else 300))
HOSTS, CONDUCTORS = ('one', 'two', 'three', 'four'), ('conductor-0', 'conductor-1')
#: Jobs of the hypervisors that end each second, all the time, and how many end at once besides, after so many seconds.
STREAM, BURST, BURST_AFTER = 4, 32, 5.0
#: How many claims a conductor has to hold to be worth a kill.
HELD = 3
#: The line that a conductor logs when it has stored a transition: the moment, and the migration's id.
TRANSITION = re.compile(r'^(\S+ \S+) \d+ INFO migrator\.conductor\.engine \[req \S+ mig (\S+)\] \w+ of ', re.MULTILINE)
ENDED = [status.value for status in TERMINAL]
#: Seconds after the kill in which every migration has to go on that has something due; from when it is due for those whose jobs end later.
BOUND = 10.0
#: The product's own times; only places and operations of a host are raised, and jobs last until they are told to end.
OPTIONS = {
    'DEFAULT': {'debug': False},
    'conductor': {'claim_seconds': 5.0, 'sweep_interval': 1.0, 'retry_interval': 2.0, 'observe_interval': 2.0, 'poll_interval': 30.0,
                  'host_down_after': 60.0, 'host_lost_after': 120.0, 'max_migrations_per_host': MIGRATIONS},
    'compute': {'heartbeat_interval': 5.0, 'report_interval': 2.0, 'max_operations': MIGRATIONS},
    'fake': {'migration_seconds': 3600, 'memory_mib': 1 << 20}}


class TestTakeover(fixtures.TestWithFixtures):
    """On MariaDB."""

    database = 'mysql'

    def setUp(self):
        # Each migration in flight keeps one of its agent's native threads, which a real host with 32 operations at most has enough of.
        self.useFixture(fixtures.EnvironmentVariable('EVENTLET_THREADPOOL_SIZE', str(MIGRATIONS // len(HOSTS) + 64)))
        broker = services.Broker()
        database = services.Database(self.database)
        for fixture in (broker, database):
            fixture.setUp()
            self.addCleanup(fixture.cleanUp)
        self.cluster = Cluster(broker.url, database.url, HOSTS, conductors=2, options=OPTIONS)
        self.cluster.setUp()
        self.addCleanup(self.cluster.cleanUp)

    def test_conductor_dies_while_it_holds_claims(self):
        """Given migrations of which many are due, when a conductor that holds claims is killed, all go on within 10 s, none runs twice."""
        self.put_in_flight()
        ends = self.schedule()
        killed, held = self.kill_one_that_holds_claims()
        left = self.unfinished()
        self.await_ends(ends)
        waits = self.waits({migration: max(killed, ends[migration]) for migration in left})
        self.tell(held, {m for m in left if ends[m] <= killed}, waits, left)
        self.assertEqual([], sorted(left - set(waits)), 'these did not go on')
        self.assert_executed_once()
        self.assert_all_moved()
        self.assertLessEqual(max(waits.values()), BOUND)

    # --- given ---

    def put_in_flight(self):
        """Have every guest migrated from its host to the next one, until all jobs run."""
        guests = [{'host': HOSTS[n % len(HOSTS)], 'uuid': str(uuid.uuid4()), 'memory_mib': 64} for n in range(MIGRATIONS)]
        self.cluster.world.add_guests(guests)
        known = sa.select(sa.func.count()).select_from(tables.instance)
        self.cluster.wait_for(lambda: self.count(known) == MIGRATIONS, 'the guests in the catalogue', 120)
        self.destinations = {g['uuid']: HOSTS[(HOSTS.index(g['host']) + 1) % len(HOSTS)] for g in guests}
        with concurrent.futures.ThreadPoolExecutor(4) as callers:
            list(callers.map(lambda item: self.cluster.api.live_migrate(*item), self.destinations.items()))
        running = sa.select(sa.func.count()).select_from(tables.migration).where(tables.migration.c.status == Status.RUNNING.value)
        self.cluster.wait_for(lambda: self.count(running) == MIGRATIONS and self.active_jobs() == MIGRATIONS, 'all in flight', 400)

    def count(self, query):
        return self.cluster.database.run(lambda tx: tx.execute(query).scalar())

    def active_jobs(self):
        with self.cluster.world.store.read() as db:
            return db.execute("SELECT count(*) FROM job WHERE state = 'active'").fetchone()[0]

    # --- when ---

    def schedule(self):
        """Say when each job of the hypervisors ends. Returns the moments by migration, in seconds since the epoch."""
        begin = time.time() + 1.0
        with self.cluster.world.store.read() as db:
            jobs = [row['migration'] for row in db.execute("SELECT migration FROM job WHERE state = 'active' ORDER BY uuid")]
        ends = dict.fromkeys(jobs[:BURST], begin + BURST_AFTER)
        ends |= {migration: begin + number / STREAM for number, migration in enumerate(jobs[BURST:])}
        self.cluster.world.end_jobs(ends)
        self.burst = begin + BURST_AFTER
        return ends

    def kill_one_that_holds_claims(self):
        """Stop one conductor after the other while the burst is worked on, until one holds enough; kill it.

        Returns when it was stopped, in seconds since the epoch, and the ids of the migrations that it held.
        """
        self.cluster.wait_for(lambda: time.time() >= self.burst, 'the jobs that end at once', 60)
        for name in itertools.cycle(CONDUCTORS):
            conductor = self.cluster.daemons[name]
            os.kill(conductor.pid, signal.SIGSTOP)
            stopped, held = time.time(), self.claims_of(name)
            if len(held) >= HELD:
                conductor.kill()
                return stopped, held
            os.kill(conductor.pid, signal.SIGCONT)
            self.assertLess(time.time(), self.burst + 30, f'no conductor held {HELD} claims at any look')
            time.sleep(0.1)     # what a conductor holds changes with each message; there is no event to wait for

    def claims_of(self, name):
        """Ids of the migrations whose last transition is this conductor's and was not answered yet: hosts are being asked where the guest
        is, or no agent has noted the operation that it stands at."""
        m = tables.migration.c
        query = sa.select(m.id, m.phase, m.step, m.attempt).where(m.phase.in_([Phase.OBSERVING.value, Phase.OPERATION.value]))
        rows = self.cluster.database.run(lambda tx: tx.execute(query).all())
        noted = {op_id for _host, op_id, *_ in self.noted()}
        waiting = {row.id for row in rows if row.phase == Phase.OBSERVING or f'{row.id}/{row.step}/{row.attempt}' not in noted}
        return waiting & self.last_touched_by(name)

    def noted(self):
        """What stands in the agents' journals."""
        return [row for host in HOSTS for row in watch.journal(self.cluster.folder / f'{host}-journal.db', host)]

    # --- then ---

    def unfinished(self):
        """Ids of the migrations that have not ended."""
        query = sa.select(tables.migration.c.id).where(tables.migration.c.status.not_in(ENDED))
        return set(self.cluster.database.run(lambda tx: tx.execute(query).scalars().all()))

    def transitions(self):
        """When which conductor had stored a transition of which migration, in order: (seconds since the epoch, name, id), from the logs."""
        return sorted((datetime.datetime.fromisoformat(at).timestamp(), name, migration) for name in CONDUCTORS
                      for at, migration in TRANSITION.findall(self.cluster.daemons[name].log.read_text()))

    def last_touched_by(self, name):
        """Ids of the migrations whose last transition was stored by this conductor."""
        last = {migration: conductor for _at, conductor, migration in self.transitions()}
        return {migration for migration, conductor in last.items() if conductor == name}

    def await_ends(self, ends):
        """Wait until all have ended; the last job ends when the stream does."""
        self.cluster.wait_for(lambda: not self.unfinished(), 'the end of all migrations', len(ends) / STREAM + 120)

    def waits(self, due):
        """Seconds from when something is due to the next stored transition of each migration.

        due: {migration: seconds since the epoch}.
        """
        found = {}
        for at, _conductor, migration in self.transitions():
            if migration in due and at >= due[migration]:
                found.setdefault(migration, at - due[migration])
        return found

    def tell(self, held, at_once, waits, left):
        """Print the figures."""
        def figures(ids):
            times = sorted(waits[i] for i in ids if i in waits)
            return f'{len(times)}: median {times[len(times) // 2]:.2f} s, 95 of 100 within {times[int(len(times) * 0.95)]:.2f} s, ' \
                   f'longest {times[-1]:.2f} s'
        sys.stderr.write(f'take-over on {self.database}, {MIGRATIONS} put in flight, {len(left)} not ended at the kill; '
                         'to the next transition:\n'
                         f'  from the kill, held by the dead conductor: {figures(held)}\n'
                         f'  from the kill, all that had something due: {figures(at_once)}\n'
                         f'  from the ends of their jobs, later: {figures(left - at_once)}\n')

    def assert_executed_once(self):
        """Every hypervisor was asked once, and every operation stands in one agent's journal, once."""
        self.assertEqual([], rules.executed_once(job['migration'] for job in self.cluster.world.jobs()))
        noted = self.noted()
        self.assertEqual([], [words for words in rules.journals(noted) if 'stands in the journals' in words])
        moves = collections.Counter(op_id.partition('/')[0] for _host, op_id, method, *_ in noted if method == 'live_migration')
        self.assertEqual((MIGRATIONS, {1}), (len(moves), set(moves.values())))

    def assert_all_moved(self):
        """Each guest runs at its destination alone, by the hosts and by the catalogue, and nothing is left."""
        catalogue = {row.uuid: (row.host, row.state) for row in self.cluster.rows(tables.instance)}
        for guest, host in self.destinations.items():
            self.assertEqual(({host: GuestState.RUNNING}, (host, 'running')), (self.cluster.world.where(guest), catalogue[guest]))
        self.assertEqual([], self.cluster.world.check())
        self.assertEqual([], self.cluster.database.run(watch.remains))


if FULL:
    class TestTakeoverOnPostgreSQL(TestTakeover):
        """The same on PostgreSQL."""

        database = 'postgresql'
