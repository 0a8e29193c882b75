"""One orchestrated migration, and the benchmark's own look at it: by SQL, so that no RPC poll disturbs what is measured."""
import time
import uuid

import sqlalchemy as sa

from migrator.conductor.db import tables
from migrator.states import TERMINAL
from tests.bench.cost import Moved
from tests.lab import wait_until

#: migrator's own defaults, over the short times of tests; heartbeats come each second, so that a guest that was moved bare is soon adopted.
OPTIONS = {
    'DEFAULT': {'debug': False},
    'conductor': {'claim_seconds': 5, 'sweep_interval': 1, 'retry_interval': 2, 'observe_interval': 2, 'poll_interval': 30,
                  'host_down_after': 20, 'host_lost_after': 60, 'max_migrations_per_host': 1000},
    'compute': {'heartbeat_interval': 1.0, 'report_interval': 2, 'progress_interval': 1.0}}
#: Seconds between two looks at the database while a migration runs.
LOOK_SECONDS = 0.01


class Watch:
    """A database connection of the benchmark's own. number: the server's number of it, 0 where there is no server."""

    def __init__(self, url):
        """url: of the daemons' database."""
        self._engine = sa.create_engine(url, isolation_level='AUTOCOMMIT', poolclass=sa.StaticPool)
        self._connection = self._engine.connect()
        own = {'mysql': 'SELECT CONNECTION_ID()', 'postgresql': 'SELECT pg_backend_pid()'}.get(self._engine.dialect.name)
        self.number = self._connection.exec_driver_sql(own).scalar() if own else 0

    def migration(self, request_id):
        """Read the migration of a request, None if there is none yet."""
        return self._connection.execute(sa.select(tables.migration).where(tables.migration.c.request_id == request_id)).first()

    def instance(self, identity):
        """Read a guest of the catalogue, None if it is not there."""
        return self._connection.execute(sa.select(tables.instance).where(tables.instance.c.uuid == identity)).first()

    def moments(self, migration_id):
        """Read a timeline: (milliseconds of the database's clock, step, what happened, reason)."""
        e = tables.event.c
        rows = self._connection.execute(sa.select(e.at, e.step, e.what, e.reason).where(e.migration_id == migration_id).order_by(e.id))
        return [tuple(row) for row in rows]

    def close(self):
        """Close the connection."""
        self._connection.close()
        self._engine.dispose()


def orchestrate(api, watch, instance, destination, bandwidth=0, timeout=120):
    """Have migrator move a guest; returns a Moved once the migration's row is terminal. RuntimeError if it did not complete."""
    request_id = str(uuid.uuid4())
    began = time.monotonic()
    api.live_migrate(instance, destination, request_id=request_id, options={'bandwidth_mib': bandwidth})

    def ended():
        row = watch.migration(request_id)
        return row if row is not None and row.status in TERMINAL else None
    row = wait_until(ended, timeout, 'end of the migration', interval=LOOK_SECONDS)
    seconds = time.monotonic() - began
    if row.status != 'completed':
        raise RuntimeError(f'migration {row.id} to {destination}: {row.status}: {row.error}')
    return Moved(row.id, request_id, row.instance_uuid, seconds)
