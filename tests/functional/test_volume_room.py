"""Room of a pool is promised once, on SQLite, MariaDB and PostgreSQL alike: many requests at once never come to more than there is."""
import time

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db import ledger, reservations, tables, volumes
from migrator.conductor.db.database import now_ms
from migrator.conductor.engine import Engine
from migrator.conductor.intake import Intake
from migrator.conductor.volume_inventory import VolumeInventory
from migrator.conductor.volume_requests import VolumeRequests
from migrator.rpc import volume_facts
from migrator.rpc.context import MigratorContext
from tests.functional.test_database import DatabaseTestCase

MIB = 1 << 20
SMALL = 'beta@small#p1'


class RoomTest(DatabaseTestCase):
    """alpha@gold and beta@big have room; beta@small has 64 MiB, and gamma@also is another way to that array."""

    def setUp(self):
        super().setUp()
        self.options('conductor', host_down_after=600)
        self.requests = [self.conductor() for _ in range(2)]
        self.sequence = 0
        self.beat()

    def conductor(self):
        """One of two conductors, each with connections of its own."""
        database = self.connect()
        return VolumeRequests(Intake(database, Engine(database, None), self.conf.conf.conductor), database)

    def beat(self, free=64, looked=0.0):
        """Let the agents be heard of. looked: when they looked at their arrays, by their clocks, which begin with their first heartbeat."""
        self.sequence += 1
        told = {'alpha': (('gold', '', 1024),), 'beta': (('big', '', 1024), ('small', 'array', free)), 'gamma': (('also', 'array', free),)}
        began = self.clock = getattr(self, 'clock', time.monotonic())
        for host, found in told.items():
            VolumeInventory(self.database).heartbeat(volume_facts.VolumeHeartbeat(
                host, f'process-{host}', 'boot', self.sequence, time.monotonic() - began + 1, looked=looked, backends=tuple(
                    volume_facts.Backend(name, array_id=array, pools=(volume_facts.Pool('p1', 1024 * MIB, room * MIB),))
                    for name, array, room in found)))

    def volume(self, name, where, mib):
        """A volume that is there. Returns its id."""
        host, _, backend = where.partition('@')
        known = f'{len(name):08}-0000-4000-8000-{name:0>12}'.replace('far', '00f').replace('one', '001')
        self.run_(lambda tx: volumes.insert(tx, known, name=name, size=mib * MIB, host=host, backend=backend, pool='p1', lun=f'lun-{name}',
                                            status='available'))
        return known

    def ask(self, index, method, *arguments):
        """Ask one of the conductors. Returns the row of the workflow."""
        return getattr(self.requests[index % 2], method)(MigratorContext(overwrite=False), *arguments, f'request-{index}')[0]

    def new(self, index, pool, mib=16):
        return self.ask(index, 'create', {'name': f'new-{index}', 'size': mib * MIB, 'type': '', 'pool': pool, 'multiattach': False})

    def promised(self):
        """Bytes that workflows were promised, by pool."""
        rows = self.run_(lambda tx: tx.execute(sa.select(tables.reservation)).all())
        found = {}
        for row in rows:
            pool = f'{row.host}@{row.backend}'
            found[pool] = found.get(pool, 0) + row.bytes // MIB
        return found

    def end(self, work):
        """The workflow is done, by the clock of the database at this moment."""
        now = self.run_(lambda tx: tx.execute(sa.select(now_ms())).scalar())
        self.run_(lambda tx: tx.execute(sa.update(tables.migration).where(tables.migration.c.id == work.id).values(
            status='completed', phase='ended', finished_at=now)))

    def test_a_pool_is_promised_once(self):
        """Given a pool of 64 MiB that two agents serve, when 12 requests for 16 MiB of it each come at once to two conductors - new
        volumes by way of either agent, more room for a volume, the migration of another - then four are accepted, the others are told that
        the room is promised, and nothing is written of them."""
        self.volume('one', 'beta@small', 16)
        self.volume('far', 'alpha@gold', 16)
        answers = self.at_once(12, lambda n: self.ask(n, 'extend', 'one', 32 * MIB) if n == 0 else self.ask(
            n, 'migrate', 'far', SMALL, {'new_type': ''}) if n == 1 else self.new(n, (SMALL, 'gamma@also#p1')[n % 2]))
        won = [answer for answer in answers if not isinstance(answer, Exception)]
        self.assertEqual(4, len(won), answers)
        for answer in answers:
            if isinstance(answer, Exception):
                self.assertIsInstance(answer, exceptions.NoRoom)
                self.assertIn('has 64.0 MiB free, of which 64.0 MiB are kept for requests that came before', str(answer))
        self.assertEqual(64, sum(self.promised().values()))
        self.assertEqual((4, 4), (self.count(tables.migration), self.count(tables.reservation)))

    def test_those_that_may_go_anywhere_fill_what_there_is(self):
        """Given two large pools, when some ask for a place anywhere while others move volumes from each to the other, then both are
        promised to the last byte and not beyond, and nobody's row keeps another one waiting for ever."""
        self.volume('one', 'beta@big', 512)
        self.volume('far', 'alpha@gold', 512)
        answers = self.at_once(10, lambda n: self.ask(n, 'migrate', 'one', 'alpha@gold', {'new_type': ''}) if n == 0 else self.ask(
            n, 'migrate', 'far', 'beta@big', {'new_type': ''}) if n == 1 else self.new(n, '', 256))
        for answer in answers:
            if isinstance(answer, Exception):
                self.assertIsInstance(answer, (exceptions.NoRoom, exceptions.NotPossible))
        self.assertEqual({'alpha@gold': 1024, 'beta@big': 1024}, self.promised())

    def test_room_is_free_again_once_its_array_was_seen_after_the_end(self):
        """Given a pool that is promised whole, when that work has ended, then a report of the array from before changes nothing; one from
        after it says what there is. What still runs is kept throughout."""
        first, _second = self.new(0, SMALL, 40), self.new(1, SMALL, 24)
        self.end(first)
        self.assertRaises(exceptions.NoRoom, self.new, 2, SMALL, 1)
        self.beat(looked=1.0)
        self.assertRaises(exceptions.NoRoom, self.new, 3, SMALL, 1)
        now = self.run_(lambda tx: tx.execute(sa.select(now_ms())).scalar())
        row = tables.migration.c.id == first.id
        self.run_(lambda tx: tx.execute(sa.update(tables.migration).where(row).values(finished_at=now - 10_000)))
        self.beat(free=30, looked=time.monotonic() - self.clock + 1)
        self.assertRaises(exceptions.NoRoom, self.new, 4, SMALL, 7)
        self.new(5, SMALL, 6)

    def test_it_goes_with_its_workflow(self):
        """Given work that ended long ago, when it is purged, then nothing is left of what it was promised."""
        self.end(self.new(0, SMALL))
        self.assertEqual(1, self.run_(lambda tx: ledger.purge(tx, -1)))
        self.assertEqual((0, []), (self.count(tables.reservation), self.run_(reservations.listing)))
