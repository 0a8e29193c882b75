"""What the outages in the lab share: a cloud with short times, a sample by a seed, and the damage that is done."""
import datetime
import os
import random
import sys

from migrator.conductor.db import tables
from migrator.states import Status
from tests.cloud import SILENCE
from tests.cloud_case import CloudCase

SEED = os.environ.get('MIGRATOR_TEST_SEED') or datetime.datetime.now(datetime.UTC).date().isoformat()
FULL = os.environ.get('MIGRATOR_TEST_FULL') == '1'
#: Classes of scenarios of which each day has one.
BY_TURNS = ('TestFullDisks', 'TestLibvirtd', 'TestLostHosts')
#: Seconds after which a host counts as down, and as lost; a broker's connection that is cut is noticed within HEARTBEAT.
DOWN_AFTER, LOST_AFTER, HEARTBEAT = 5.0, 8.0, 6
#: What the conductor keeps its rows in: the day chooses, and with MIGRATOR_TEST_FULL=1 everything is done on both.
DATABASE = 'mysql' if FULL else random.Random(f'{SEED} database').choice(('mysql', 'postgresql'))
#: No two of these tests need longer times: no conductor dies in them, so that no heartbeat is lost for longer than its interval.
OPTIONS = {'': {'oslo_messaging_rabbit': {'heartbeat_timeout_threshold': HEARTBEAT}},
           'conductor-0': {'conductor': {'host_down_after': DOWN_AFTER, 'host_lost_after': LOST_AFTER}}}


def sampled(*, daily):
    """Decorate a class of scenarios. All of them run with MIGRATOR_TEST_FULL=1; otherwise MIGRATOR_TEST_SEED or the day chooses one.

    daily: whether the class has its turn each day. Of those that have not, the day chooses one class: each class makes a cloud of its own,
    which takes as long as a scenario does.
    """
    def choose(cls):
        names = sorted(name for name in vars(cls) if name.startswith('test_'))
        turn = daily or cls.__name__ == random.Random(SEED).choice(BY_TURNS)
        kept = names if FULL else random.Random(f'{SEED} {cls.__name__}').sample(names, int(turn))
        for name in set(names) - set(kept):
            delattr(cls, name)
        cls.chosen = f'{cls.__name__}: ' + ('all scenarios' if FULL else f'of MIGRATOR_TEST_SEED={SEED}: {", ".join(sorted(kept))}')
        return cls
    return choose


def on_postgresql(cls):
    """Give the class of the same scenarios on PostgreSQL, for runs in which the class itself is on MariaDB."""
    return type(f'{cls.__name__}OnPostgreSQL', (cls,), {'__module__': cls.__module__, '__doc__': 'The same on PostgreSQL.',
                                                        'arguments': {**cls.arguments, 'database': 'postgresql'}})


class OutageCase(CloudCase):
    """A cloud that notices outages soon."""

    arguments = {'options': OPTIONS, 'database': DATABASE}
    chosen = ''

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        sys.stderr.write(f'{cls.chosen}, on {cls.arguments["database"]}\n')

    def _tidy_after_success(self):
        for host in self.cloud.hosts.values():
            host.heal()
        super()._tidy_after_success()

    def await_status(self, migration, status, timeout=60):
        """Wait until a migration has a status; returns the migration."""
        def look():
            view = self.api.show(migration['id'])
            return view if view['status'] == status else None
        return self.wait_for(look, f'{status} of {migration["id"]}', timeout)

    def assert_owed(self, guest, *hosts):
        """Debts for the guest are open at exactly these hosts."""
        self.assertEqual(sorted(hosts), sorted({row.host for row in self.cloud.rows(tables.debt)
                                                if row.instance_uuid == guest.uuid and row.paid_at is None}))

    def await_paid(self, guest):
        """Wait until no debt for the guest is open."""
        self.wait_for(lambda: not self.api.instance_show(guest.uuid)['debts'], 'the debts are paid', 60)

    def assert_outcome(self, ended, guest, host, status=Status.COMPLETED, state='running', silence=SILENCE):
        """As for every migration; and the audit finds nothing on any host."""
        super().assert_outcome(ended, guest, host, status, state, silence)
        self.assert_nothing_leaked()

    def assert_one_copy(self, ended, guest, here, there):
        """It was completed or undone, and either way there is one guest, whole, and nothing else of it."""
        self.assertIn(ended['status'], (Status.COMPLETED, Status.FAILED), ended)
        self.assert_outcome(ended, guest, there if ended['status'] == Status.COMPLETED else here, ended['status'], silence=60.0)
