"""What is known of arrays: each volume agent's backends as its last heartbeat told of them. They have no rows of their own.

With each pool goes what accepted requests will yet take of it; what is left is what others may be given.
"""
import dataclasses

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor import room
from migrator.conductor.db import hosts, reservations
from migrator.conductor.db.tables import volume
from migrator.rpc import facts, volume_facts
from migrator.states import AgentKind


@dataclasses.dataclass(frozen=True)
class Place:
    """One backend with the agent that serves it. agent: its service row, with the database's time as `now`. promised: bytes by pool that
    requests were accepted for and that the agent's report does not show."""

    agent: object
    backend: volume_facts.Backend
    promised: dict = dataclasses.field(default_factory=dict)

    @property
    def name(self):
        """How users call it."""
        return f'{self.agent.host}@{self.backend.name}'

    def pool(self, name):
        """Give one of its pools, None if there is none of that name."""
        return next((pool for pool in self.backend.pools if pool.name == name), None)

    def room(self, pool):
        """Give the bytes that may be promised of a pool. pool: volume_facts.Pool, or None."""
        return max(0, pool.free - self.promised.get(pool.name, 0)) if pool else 0


def of_agents(rows, reserved=()):
    """Give the backends of some agents, by name. rows: service rows of volume agents. reserved: room.Reservations."""
    found = [(row, facts.from_wire(volume_facts.Backend, told)) for row in rows for told in row.facts.get('backends', ())]
    taken = room.promised(reserved, [(row.host, backend.name, pool.name, backend.array_id, row.facts.get('looked', 0))
                                     for row, backend in found for pool in backend.pools])
    return sorted((Place(row, backend, {pool.name: taken[row.host, backend.name, pool.name] for pool in backend.pools})
                   for row, backend in found), key=lambda place: place.name)


def listing(tx):
    """Read all backends. Two statements."""
    return of_agents(hosts.listing(tx, None, AgentKind.VOLUME), reservations.listing(tx))


def held(tx, *names):
    """Read all backends; nobody else is promised room of the named ones until the transaction ends. Four statements.

    names: of backends or pools, or of hosts, whose backends are all meant; none: all. With them go other agents of the same arrays.
    """
    wanted = {name.partition('#')[0] for name in names}
    found = listing(tx)
    meant = [place for place in found if not wanted or place.name in wanted or place.agent.host in wanted]
    arrays = {place.backend.array_id for place in meant} - {''}
    serving = {place.agent.host for place in (*meant, *(each for each in found if each.backend.array_id in arrays))}
    hosts.get_many(tx, sorted(serving), AgentKind.VOLUME)
    return listing(tx)


def one(found, host, backend):
    """Choose one of several Places. Raises BackendNotFound."""
    for place in found:
        if (place.agent.host, place.backend.name) == (host, backend):
            return place
    raise exceptions.BackendNotFound(f'there is no backend {host}@{backend}')


def get(tx, host, backend):
    """Read one backend. Two statements. Raises BackendNotFound."""
    return one(listing(tx), host, backend)


def counts(tx):
    """Count the volumes: (host, backend, pool) -> (how many, their bytes). One statement."""
    rows = tx.execute(sa.select(volume.c.host, volume.c.backend, volume.c.pool, sa.func.count().label('many'),
                                sa.func.sum(volume.c.size).label('bytes')).group_by(volume.c.host, volume.c.backend, volume.c.pool)).all()
    return {(row.host, row.backend, row.pool): (row.many, int(row.bytes or 0)) for row in rows}
