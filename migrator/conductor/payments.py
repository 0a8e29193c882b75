"""Paying debts: a cleanup that a host owes is issued to it when it is heard of again, until it reports that it is done.

A debt's operation has the debt's id as its owner, so that its report finds its way here; the agent checks the precondition
as it acts, as always. What no agent can know is checked here: a guest that the catalogue has elsewhere by now is not resumed, and a LUN
that it has a volume in is not removed.
"""
import dataclasses

from oslo_log import log

from migrator import exceptions
from migrator.conductor import stimulus, volume_work
from migrator.conductor.agents import Place, Reply, check_reporter, finished
from migrator.conductor.commits import commit
from migrator.conductor.cursor import Policy
from migrator.conductor.db import debts, ledger, volumes
from migrator.conductor.volume_agents import removed_by
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.model import Commit
from migrator.rpc import context as rpc_context
from migrator.rpc import facts
from migrator.states import OperationState

LOG = log.getLogger(__name__)


class Payments:
    """Collects debts."""

    def __init__(self, database, agents, settings):
        self.database = database
        self.agents = agents
        self.settings = settings
        self.horizon = Policy.of(settings).horizon

    def collect(self):
        """Issue the debts that are due at hosts that are up. Called by the sweep; several conductors may do it at once."""
        wait = self.settings.claim_seconds * 1000
        for row in self.database.run(lambda tx: debts.due(tx, self.settings.host_down_after, horizon=self.horizon)):
            if self.database.run(lambda tx, row=row: debts.claim(tx, row, wait)):
                self._issue(row)

    def _issue(self, row):
        line = WORKFLOWS[row.kind].line(row.action)
        arguments = volume_work.read_arguments(line.agent, row.arguments)
        why = self._obstacle(row, arguments)
        if why:
            reply = Reply(stimulus.Finished(OperationState.FAILED, why, untouched=True), error=why)
            return self._settle(row.id, row.attempt, reply, row.process_id)
        context = rpc_context.MigratorContext(migration_id=row.migration_id)
        # The epoch is the migration's own: one raised for this debt would make the agent refuse the migration's other debts, or the
        # migration itself while it is under way. Of late attempts at the same debt the agent knows by their number.
        envelope = facts.Envelope(op_id=f'{row.id}/{row.action}/{row.attempt}', migration_id=row.migration_id, epoch=row.epoch,
                                  process_id=row.process_id, request_id=context.request_id)
        LOG.info('%s is asked to pay a debt: %s', row.host, row.action)
        reply = self.agents.begin(context, row.action, Place(row.host, line.on, line.agent), envelope, arguments)
        if reply is not None and hasattr(reply.event, 'state'):
            self._settle(row.id, row.attempt, reply, row.process_id)
        return None

    def _obstacle(self, row, arguments):
        """Say what the catalogue knows that forbids a cleanup by now, '' if nothing does."""
        if resumes(row) and row.instance_host != row.host:
            return f'the guest is known at {row.instance_host or "no host"} by now; it must not go on at {row.host}'
        if resumes(row) and row.sighted_host not in (None, '', row.host):
            return f'the guest was seen at {row.sighted_host}, where it is {row.sighted_state}; it must not go on at {row.host} as well'
        where = removed_by(row.action, arguments.get('plan'))
        if where is None:
            return ''
        try:
            known = self.database.run(lambda tx: volumes.get(tx, row.volume_id))
        except exceptions.VolumeNotFound:       # it was deleted since, and with it the LUN that it had
            return ''
        if (known.host, known.backend, known.pool, known.lun) == dataclasses.astuple(where):
            return f'the volume is known at {where.place} as {where.lun} by now; that LUN must not be removed'
        return ''

    def finished(self, report):
        """Take an agent's report. True if it was about a debt. Raises WrongHost if another host owes it."""
        owner, _action, attempt = report.op_id.split('/')
        if owner == report.migration_id:
            return False
        known = self.database.run(lambda tx: debts.get(tx, owner))
        if known is not None:
            check_reporter(report.host, known.host, report.op_id)
        self._settle(owner, int(attempt), finished(report), report.process_id)
        return True

    def _settle(self, debt_id, attempt, reply, process_id):
        """Write down how an issue of a debt ended. Where the guest is not, there is nothing left to be cleared."""
        state, refused = reply.event.state, reply.event.untouched
        if state is OperationState.SUCCEEDED or reply.gone:
            LOG.info('debt %s is paid', debt_id)
            self.database.run(lambda tx: self._paid(tx, debt_id, reply))
        else:
            wait = self.settings.poll_interval * 1000
            error = reply.error or state.value
            self.database.run(lambda tx: debts.again(tx, debt_id, attempt, error, wait, process_id, refused))

    @staticmethod
    def _paid(tx, debt_id, reply):
        """The debt is paid, and the catalogue learns what it would have learned had the cleanup been done at once."""
        row = debts.get(tx, debt_id)
        if row is None or row.paid_at is not None or row.written_off_at is not None:
            return          # of one that was written off, the catalogue may have been told something else since
        record = ledger.load(tx, row.migration_id)
        what = WORKFLOWS[record.row.kind].commit_of(row.action)
        if not (reply.gone and what is Commit.STOPPED):
            commit(tx, record, what, reply)
        debts.paid(tx, debt_id)


def resumes(row):
    """Tell whether a debt's action lets a guest go on."""
    undo = WORKFLOWS[row.kind].step(row.action).undo
    return undo is not None and undo.method == row.action and undo.vital
