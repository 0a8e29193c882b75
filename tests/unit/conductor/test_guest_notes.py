"""What a host says of a guest that stood still is told in the timelines of the volumes that move under that guest, and nowhere else."""
import sqlalchemy as sa

from migrator.conductor.db import catalogue, ledger, tables, volumes
from migrator.rpc import facts
from migrator.states import GuestState
from tests.unit.conductor.test_inventory import BeatCase

WEB, MAIL = '11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'
STALLED, WENT_ON = 'stands still since 10:00: an I/O error of a volume', 'stood still from 10:00 to 10:01: an I/O error of a volume'


class GuestNotesTest(BeatCase):
    """Given two guests, each with a volume, and a migration of each volume: of the first it is under way, of the second it is over."""

    def setUp(self):
        super().setUp()
        self.tells()
        self.moving, self.moved = self.migrated(WEB, 'running'), self.migrated(MAIL, 'completed')

    def tells(self, web='', mail='', state=GuestState.RUNNING):
        """The host tells of both guests, and of the notes that it has."""
        return self.beat(*(facts.Guest(uuid=uuid, name=name, state=state, memory_mib=64, vcpus=1, note=note)
                           for uuid, name, note in ((WEB, 'web', web), (MAIL, 'mail', mail))))

    def migrated(self, guest, status, kind='volume_migration'):
        """Attach a volume to a guest, and have a migration of it; returns the migration's id."""
        volume, migration = guest[:-1] + '7', guest[:-1] + ('8' if kind == 'volume_migration' else '9')
        row = {'kind': kind, 'volume_id': volume, 'source_host': 'east', 'request_id': migration, 'request': {}, 'policy': {},
               'plan': {}, 'facts': {}, 'progress': {}, 'status': status, 'phase': 'operation', 'step': 'complete_migration_target',
               'direction': 'forward', 'begun': [], 'created_at': 1, 'updated_at': 1, 'error': '', 'reason': ''}

        def work(tx):
            tx.execute(sa.insert(tables.migration).values(id=migration, **row))
            if kind == 'volume_migration':
                volumes.insert_attachment(tx, guest[:-1] + '6', volume_id=volume, instance_uuid=guest, host='alpha', status='attached')
        self.database.run(work)
        return migration

    def told(self, migration):
        """The words in a timeline."""
        return [(e.what, e.status, e.step, e.reason) for e in self.database.run(lambda tx: ledger.events(tx, migration))]

    @staticmethod
    def event(words):
        """How these words are told of the first guest."""
        return 'guest_note', 'running', 'complete_migration_target', f'instance web at alpha {words}'

    def test_every_note_is_kept_and_told_once(self):
        """Given a guest that stalls and goes on, however often its host tells of it, then both stand in the timeline, once each."""
        for note in (STALLED, STALLED, WENT_ON, WENT_ON, ''):
            self.tells(web=note)
        self.assertEqual([self.event(STALLED), self.event(WENT_ON)], self.told(self.moving))

    def test_what_else_changes_is_no_news(self):
        self.tells(web=STALLED)
        self.tells(web=STALLED, state=GuestState.PAUSED)
        self.assertEqual([self.event(STALLED)], self.told(self.moving))

    def test_a_migration_that_is_over_and_other_work_are_told_nothing(self):
        other = self.migrated(WEB, 'running', kind='volume_attach')
        self.tells(web=STALLED, mail=STALLED)
        self.assertEqual(([], []), (self.told(self.moved), self.told(other)))

    def test_a_guest_that_is_worked_on_is_told_of_afterwards(self):
        """Given a guest that is locked, since the volume is just being attached, when its note is new, it is told when that is over."""
        self.database.run(lambda tx: ledger.lock(tx, catalogue.resource(WEB), self.moved))
        self.assertEqual({'resync': True}, self.tells(web=STALLED))
        self.assertEqual([], self.told(self.moving))
        self.database.run(lambda tx: ledger.unlock_all(tx, self.moved))
        self.tells(web=STALLED)
        self.assertEqual([self.event(STALLED)], self.told(self.moving))
