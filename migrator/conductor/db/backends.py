"""What is known of arrays: each volume agent's backends as its last heartbeat told of them. They have no rows of their own."""
import dataclasses

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db import hosts
from migrator.conductor.db.tables import volume
from migrator.rpc import facts, volume_facts
from migrator.states import AgentKind


@dataclasses.dataclass(frozen=True)
class Place:
    """One backend with the agent that serves it. agent: its service row, with the database's time as `now`."""

    agent: object
    backend: volume_facts.Backend

    @property
    def name(self):
        """How users call it."""
        return f'{self.agent.host}@{self.backend.name}'

    def pool(self, name):
        """Give one of its pools, None if there is none of that name."""
        return next((pool for pool in self.backend.pools if pool.name == name), None)


def of_agents(rows):
    """Give the backends of some agents, by name. rows: service rows of volume agents."""
    return sorted((Place(row, facts.from_wire(volume_facts.Backend, told)) for row in rows for told in row.facts.get('backends', ())),
                  key=lambda place: place.name)


def listing(tx, host=None):
    """Read all backends, or those of one host. One statement."""
    return of_agents(hosts.listing(tx, host, AgentKind.VOLUME))


def get(tx, host, backend):
    """Read one backend. One statement. Raises BackendNotFound."""
    for place in listing(tx, host):
        if place.backend.name == backend:
            return place
    raise exceptions.BackendNotFound(f'there is no backend {host}@{backend}')


def counts(tx):
    """Count the volumes: (host, backend, pool) -> (how many, their bytes). One statement."""
    rows = tx.execute(sa.select(volume.c.host, volume.c.backend, volume.c.pool, sa.func.count().label('many'),
                                sa.func.sum(volume.c.size).label('bytes')).group_by(volume.c.host, volume.c.backend, volume.c.pool)).all()
    return {(row.host, row.backend, row.pool): (row.many, int(row.bytes or 0)) for row in rows}
