"""What the tests of outages have in common: a cloud on servers of its own, and a fleet of migrations, one at each step.

A fleet is brought to its steps by the simulated hypervisors: one migration hangs in the destination's preparation, one before the
hypervisor's call, one has its job running, one hangs in each of the steps after it, one in the undo of a failed one, and one is only
asked for when the outage has begun. Half of the hypervisors' calls end during the outage, so that their outcomes find nobody to take
them; the others end after it.
"""
import contextlib
import os
import re
import sqlite3
import threading
import time
import uuid

from migrator import exceptions
from migrator.conductor.db import tables
from migrator.states import TERMINAL, Status
from tests import services
from tests.cluster import Cluster
from tests.faults.class_fixtures import ClassFixtures

SOURCE, DESTINATION = 'one', 'two'
FULL = os.environ.get('MIGRATOR_TEST_FULL') == '1'

#: What is meant by a minute; in CI it is shorter, but longer than every time-out of the cloud below.
MINUTE = 60.0 if FULL else 12.0

#: Where a fleet waits: the step, and the host that hangs in it. `running` is a job that goes on until it is told to end.
PREPARING, BEFORE, RUNNING, SETTLING, CLEARING, UNDOING = (
    ('pre_live_migration', DESTINATION), ('live_migration', SOURCE), ('running', SOURCE),
    ('post_live_migration_at_destination', DESTINATION), ('post_live_migration_at_source', SOURCE),
    ('rollback_live_migration_at_destination', DESTINATION))
PLACES = (PREPARING, BEFORE, RUNNING, SETTLING, CLEARING, UNDOING)


class Fleet:
    """Migrations of a cluster, each held at a step, until `let_go`."""

    def __init__(self, cluster, places=PLACES):
        self.cluster = cluster
        self.places = places
        self.ids = {}           # guest -> migration id
        self.at = {}            # place -> guest
        guests = self._guests(len(places) + 1)
        self.late = guests.pop()
        for place, guest in zip(places, guests, strict=True):
            self._bring(place, guest)

    def _guests(self, count):
        """Have so many guests running at the source."""
        asked = []
        for _ in range(count):
            spec = {'uuid': str(uuid.uuid4()), 'name': f'guest-{uuid.uuid4().hex[:8]}', 'memory_mib': 64,
                    'disks': [{'target': 'vda', 'size': 1 << 20}]}
            asked.append((self.cluster.api.instance_create(SOURCE, spec), spec['uuid']))
        for migration, _ in asked:
            self.cluster.ended(migration)
        return [guest for _, guest in asked]

    def _bring(self, place, guest):
        method, host = place
        world = self.cluster.world
        if place == RUNNING:
            world.set_dirty_rate(guest, 1 << 20)        # it never converges by itself
        elif place == UNDOING:
            world.inject(SOURCE, 'live_migration', 'fail')
            world.inject(host, method, 'hang')
        else:
            world.inject(host, method, 'hang')
        self.at[place] = guest
        self.ids[guest] = self.cluster.api.live_migrate(guest, DESTINATION, request_id=f'once-{guest}')['id']
        if place == RUNNING:
            self.cluster.wait_for(lambda: world.jobs(guest), f'job of {guest}')
        else:
            self.cluster.wait_for(lambda: begun(self.cluster, host, self.ids[guest], method), f'{method} of {guest} at {host}')

    def ask_late(self):
        """Ask for one more migration, over and over until somebody answers; in a thread of its own."""
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self):
        deadline = time.monotonic() + MINUTE + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(exceptions.Unavailable, exceptions.HostDown):
                self.ids[self.late] = self.cluster.api.live_migrate(self.late, DESTINATION, request_id=f'once-{self.late}')['id']
                return
            time.sleep(0.2)

    def let_go_some(self):
        """Let the calls end whose outcomes are to come in the midst of it."""
        self.cluster.world.release(*reversed(PREPARING))
        self.cluster.world.release(*reversed(CLEARING))
        if RUNNING in self.at:
            self.cluster.world.finish_job(self.at[RUNNING])

    def let_go(self):
        """Let everything go on."""
        self.cluster.world.release()
        for guest in self.at.values():
            self.cluster.world.finish_job(guest)

    def await_end(self, timeout):
        """Wait until all have ended; returns {guest: row}."""
        def look():
            with contextlib.suppress(exceptions.Unavailable):
                rows = {r.instance_uuid: r for r in self.cluster.rows(tables.migration) if r.kind == 'live_migration'}
                mine = {guest: rows[guest] for guest in [*self.at.values(), self.late] if guest in rows}
                ended = [r for r in mine.values() if Status(r.status) in TERMINAL]
                return mine if len(ended) == len(self.at) + 1 else None
        try:
            return self.cluster.wait_for(look, 'end of all migrations', timeout)
        except Exception as error:
            stuck = [(r.instance_uuid, r.status, r.step, r.reason) for r in self.cluster.rows(tables.migration)
                     if Status(r.status) not in TERMINAL]
            raise AssertionError(f'{error}: {stuck}') from error


def journal(cluster, host):
    """Every operation in an agent's journal, as (op_id, state, process_id)."""
    with contextlib.closing(sqlite3.connect(f'file:{cluster.folder}/{host}-journal.db?mode=ro', uri=True, timeout=10)) as db:
        return db.execute('SELECT op_id, state, process_id FROM operation').fetchall()


def begun(cluster, host, migration_id, method):
    """Whether the host's agent has begun this step."""
    return any(op_id.startswith(f'{migration_id}/{method}/') for op_id, *_ in journal(cluster, host))


class OutageCase(ClassFixtures):
    """A cloud of two hosts and two conductors serves all cases of a class, on a broker and a database that are theirs alone."""

    database = 'mysql'
    conductors = 2
    #: A host that is silent for as long as the outage lasts is not lost yet: else what has not begun is rightly undone.
    options = {'conductor': {'max_migrations_per_host': 50, 'host_lost_after': MINUTE + 45}}
    own_broker = own_database = True

    #: Whether a hypervisor's call may have been cut off: such a one is not made a second time, so its migration may end as failed.
    forgiving = False

    @classmethod
    def setUpClass(cls):
        def serve(kind):
            server = services.Server(kind)
            cls.addClassCleanup(server.stop)
            return server
        cls.broker = serve('rabbitmq') if cls.own_broker else None
        cls.server = serve(services.DATABASES[cls.database][0]) if cls.own_database else None
        cls.admin_url = cls.use(services.Database(cls.database, cls.server)).url
        urls = [cls.broker.url() if cls.broker else cls.use(services.Broker()).url, cls.account(cls.admin_url)]
        cls.cluster = cls.use(Cluster(*urls, hosts=(SOURCE, DESTINATION), conductors=cls.conductors, arm=True, options=cls.options))

    @classmethod
    def account(cls, url):
        """The URL that the daemons are given."""
        return url

    def setUp(self):
        self.cluster.kill_file.unlink(missing_ok=True)
        self.cluster.world.release()
        self.all_up()
        self.marks = {name: os.path.getsize(d.log) for name, d in self.cluster.daemons.items()}

    def all_up(self, timeout=30):
        """Every daemon runs, and the conductors hear both hosts."""
        for daemon in self.cluster.daemons.values():
            if not daemon.running():
                self.cluster.restart(daemon)

        def heard():
            with contextlib.suppress(exceptions.Unavailable):
                return all(h['state'] == 'up' for h in self.cluster.api.hosts())
        self.cluster.wait_for(heard, 'both hosts up', timeout)

    def outage(self, begin, end, seconds, timeout=40.0, going_on=None):
        """Given a fleet, when `begin` is called and `seconds` later `end`, then all end as they should.

        going_on: called over and over in between, instead of waiting. Returns the seconds from the end to the last migration's.
        """
        fleet = Fleet(self.cluster)
        begin()
        try:
            until = time.monotonic() + seconds
            fleet.ask_late()
            self.endure(seconds / 2, going_on)
            fleet.let_go_some()
            self.endure(until - time.monotonic(), going_on)
        finally:
            end()
        fleet.let_go()
        over = time.monotonic()
        ended = fleet.await_end(timeout)
        took = time.monotonic() - over
        self.check(fleet, ended)
        self.all_up()
        print(f'{self.id()}: all had ended {took:.1f} s after it', flush=True)
        return took

    @staticmethod
    def endure(seconds, going_on):
        """Let time pass."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if going_on:
                going_on()
            time.sleep(0.1)

    def check(self, fleet, ended):
        """One running guest each where the database says, nothing left, nothing done twice, and logs that a person can read."""
        for place, guest in [*fleet.at.items(), (None, fleet.late)]:
            row = ended[guest]
            at = DESTINATION if row.status == Status.COMPLETED.value else SOURCE
            self.assertEqual([], self.settled(guest, at), (place, row.status, row.reason))
            self.assertLessEqual(len(self.cluster.world.jobs(guest)), 1, 'the hypervisor migrated it more than once')
            if place == UNDOING:
                self.assertEqual(Status.FAILED.value, row.status, row.reason)
            elif place is not None:
                self.check_end(place, row)
        self.check_once()
        self.assertEqual([], self.cluster.audited(), 'the audit')
        self.check_logs()

    def check_end(self, place, row):
        """An outage of what daemons talk through is no reason to give a migration up."""
        if self.forgiving and place == BEFORE:
            self.assertIn(row.status, (Status.COMPLETED.value, Status.FAILED.value), (place, row.reason))
            return
        self.assertEqual(Status.COMPLETED.value, row.status, (place, row.reason))

    def settled(self, guest, at, seconds=10):
        """Give the violations once the heartbeats have settled: at once if there are none."""
        until = time.monotonic() + seconds
        while True:
            try:
                found = self.cluster.violations(guest, at)
            except exceptions.Unavailable as error:
                found = [str(error)]
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.1)

    def check_once(self):
        """No operation ran in two agents' processes, none under two names for the same attempt, no live_migration twice."""
        for host in (SOURCE, DESTINATION):
            names = [op_id for op_id, *_ in journal(self.cluster, host)]
            self.assertEqual(len(set(names)), len(names))
            moved = [name.split('/')[0] for name in names if '/live_migration/' in name]
            self.assertEqual(len(set(moved)), len(moved), 'live_migration was begun more than once')

    def check_logs(self):
        """What an outage brings is told in words: no traceback stands in any daemon's log."""
        for name, daemon in self.cluster.daemons.items():
            with open(daemon.log, encoding='utf-8', errors='replace') as log:
                log.seek(self.marks.get(name, 0))
                text = log.read()
            found = re.search(r'(?:.*\n){0,6}.*Traceback(?:.*\n){0,40}', text)
            self.assertIsNone(found, f'{name}: {found and found.group()}')
