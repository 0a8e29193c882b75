"""The audit: reads the database, asks every agent what its host has, reads the database again, and lets `audit` compare.

The hosts are asked while work goes on. What a workflow was at work on or a debt named in either reading, or ended in between, is left
alone, and only what is wrong by both readings is named.
"""
from oslo_log import log

from migrator import concurrency, exceptions
from migrator.conductor import audit, audit_volumes
from migrator.conductor.db import hosts, inspect, views
from migrator.rpc import errors
from migrator.states import AgentKind

LOG = log.getLogger(__name__)

#: How many parts of one host's answer are read at most.
MOST_PARTS = 1000
#: How many findings are told at most; the number of the rest is.
MOST_FINDINGS = 1000


class Inspection:
    """Takes `audit` requests."""

    def __init__(self, database, agents, settings):
        """agents: conductor.agents.Agents. settings: the [conductor] group of the configuration."""
        self.database = database
        self.agents = agents
        self.settings = settings

    def audit(self, context, host=None):
        """Compare. host: only this one; HostNotFound if there is none. Changes nothing.

        Returns {'findings', 'debts', 'not_audited', 'audited', 'left_off'}.
        """
        rows = self.database.run(lambda tx: [row for kind in AgentKind for row in hosts.listing(tx, host, kind)])
        if host and not rows:
            raise exceptions.HostNotFound(f'there is no host {host}')
        since = max((row.now for row in rows), default=0)
        before = self.database.run(lambda tx: inspect.read(tx, since))
        asked = {(row.kind, row.host): concurrency.spawn(self.ask, context, row) for row in rows}
        answers = {who: thread.wait() for who, thread in asked.items()}
        after = self.database.run(lambda tx: inspect.read(tx, since, before))
        found = audit.confirmed(before, after, lambda known: look(known, answers))
        found = [f for f in found if not host or host in f.host]
        return {'findings': [vars(f) for f in found[:MOST_FINDINGS]], 'left_off': max(0, len(found) - MOST_FINDINGS),
                'debts': [{'id': d.id, 'host': d.host, 'agent': d.agent, 'instance_uuid': d.instance_uuid, 'volume_id': d.volume_id,
                           'action': d.action, 'reason': d.reason} for d in after.debts if not host or d.host == host][:MOST_FINDINGS],
                'not_audited': [{'host': name, 'why': why if kind == AgentKind.COMPUTE.value else f'its {kind} agent: {why}'}
                                for (kind, name), why in answers.items() if isinstance(why, str)],
                'audited': sorted({name for (_, name), answer in answers.items() if not isinstance(answer, str)})}

    def ask(self, context, row):
        """Give (traces, ids of operations) of an agent, or in words why it could not be audited. row: its service row."""
        if not views.is_up(row, self.settings.host_down_after):
            return f'last heard of at {views.moment(row.last_seen)}'
        traces, operations, marker = [], [], ''
        try:
            for _ in range(MOST_PARTS):
                part = self.agents.api(AgentKind(row.kind)).audit(context, row.host, marker)
                traces += part.traces
                operations += part.operations
                marker = part.more
                if not marker:
                    return traces, operations
        except (errors.NoAnswer, errors.NotDelivered, exceptions.MigratorError) as error:
            LOG.warning('%s cannot be audited: %s', row.host, error)
            return str(error)
        return 'its answer does not come to an end'


def look(known, answers):
    """Name what is wrong by one reading of the database. answers: (kind of agent, host) -> (traces, operations), or words."""
    def heard(kind, part):
        return {host: answer[part] for (of, host), answer in answers.items() if of == kind.value and not isinstance(answer, str)}
    return (*audit.compare(known, heard(AgentKind.COMPUTE, 0), heard(AgentKind.COMPUTE, 1)),
            *audit_volumes.compare(known, heard(AgentKind.VOLUME, 0), heard(AgentKind.VOLUME, 1)))
