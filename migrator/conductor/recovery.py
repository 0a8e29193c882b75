"""Recovery on request: the same look at both hosts that comes by itself, now; and what an operator attests of a host that cannot be asked.

There is no way to set a state by hand. An attestation says that one host is off. It is written down with its author before anything
follows from it, counts only while the host is silent, and only for the migration for which it was made. A debt is written off when
its host will never come back: then nothing waits for it any more, and nothing is done about it.
"""
from migrator import exceptions
from migrator.conductor import stimulus
from migrator.conductor.agents import Reply
from migrator.conductor.db import attestations, debts, hosts, ledger, views
from migrator.conductor.engine import until_stored


class Recovery:
    """Takes `recover` requests."""

    def __init__(self, database, engine, requests, settings):
        """requests: conductor.requests.Requests. settings: the [conductor] group of the configuration."""
        self.database = database
        self.engine = engine
        self.requests = requests
        self.settings = settings

    def recover(self, context, migration_id, assert_dead=None):
        """Write down that a workflow is to be looked at now. Returns the Transition to go on with, or None. May be repeated.

        The caller goes on with it after answering, for a silent host is waited for. Should nobody do so, the sweep takes it up.
        assert_dead: name of a host that the caller attests to be off. Raises MigrationNotFound; TooLate for one that has ended;
        HostNotFound; NotPossible for a host that the migration does not concern, HostUp for one that is still heard of. Then nothing
        is changed.
        """
        return self._begin(context, migration_id, assert_dead)

    @until_stored
    def _begin(self, context, migration_id, assert_dead):
        return self.database.run(lambda tx: self._write(tx, context, migration_id, assert_dead))

    def _write(self, tx, context, migration_id, host):
        record = ledger.load(tx, migration_id)
        if record.cursor.status.terminal:
            raise exceptions.TooLate(f'the migration has ended already: {record.cursor.status.value} (migration {migration_id})')
        if host:
            self._attest(tx, context, record, host)
        else:
            ledger.note(tx, migration_id, record.now, record.cursor, 'recover', 'to be looked at now', context.user, context.request_id)
        return self.engine.transit(tx, migration_id, Reply(stimulus.Recover()), context)

    def _attest(self, tx, context, record, host):
        row = record.row
        concerned = {row.source_host: record.source, row.destination_host: record.destination}
        if host not in concerned:
            raise exceptions.NotPossible(f'migration {row.id} does not concern {host}, but {row.source_host}'
                                         + (f' and {row.destination_host}' if row.destination_host else ''))
        known = self.requests.off(tx, host, row.source_agent if host == row.source_host else row.destination_agent)
        if not concerned[host].dead:
            attestations.insert(tx, row.id, known, context.user, context.request_id)
        words = (f'{host} is attested to be off; it was last heard of at {views.moment(known.last_seen)} '
                 f'(boot {known.host_boot_id or "unknown"}, process {known.process_id})')
        ledger.note(tx, row.id, record.now, record.cursor, 'assert_dead', words, context.user, context.request_id)

    def write_off(self, context, debt_id, reason):
        """Give up a debt whose host is silent: it is never issued again, and keeps nobody from anything. Returns its row.

        The row stays, and the timeline of its migration has who did it, when and why. Written off twice, the first reason holds. Raises
        DebtNotFound; TooLate for one that is paid; HostUp for a host that is heard of, for that one pays. Then nothing is changed.
        """
        return self.database.run(lambda tx: self._write_off(tx, context, debt_id, reason))

    def _write_off(self, tx, context, debt_id, reason):
        owed = self._debt(tx, debt_id)
        if owed.written_off_at is None:
            if owed.action == 'post_live_migration_at_destination':
                raise exceptions.NotPossible(f'{owed.action} makes a guest permanent at {owed.host}; it is no cleanup that can be left')
            # A host that is up and refuses for good will not do it either: then somebody may answer for it.
            known = hosts.agents_of(tx, owed.host)[owed.agent]
            if not owed.refused:
                self.requests.unheard(known)        # the agent that owes it: another one of the host may be at work
            if not debts.write_off(tx, debt_id, context.user, reason):      # settled since it was read a moment ago
                return self._debt(tx, debt_id)
            words = (f'{owed.action} at {owed.host} is written off: {reason}; the host was last heard of at '
                     f'{views.moment(known.last_seen)}')
            record = ledger.load(tx, owed.migration_id)
            ledger.note(tx, owed.migration_id, record.now, record.cursor, 'debt_written_off', words, context.user, context.request_id)
        return self._debt(tx, debt_id)

    @staticmethod
    def _debt(tx, debt_id):
        rows = debts.listing(tx, debt_id=debt_id)
        if not rows:
            raise exceptions.DebtNotFound(f'there is no debt {debt_id}')
        if rows[0].paid_at is not None:
            raise exceptions.TooLate(f'{rows[0].host} has done it already: {rows[0].action} (debt {debt_id})')
        return rows[0]
