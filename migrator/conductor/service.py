"""The conductor daemon: the endpoints on the bus, and the sweep that takes up what is due.

Normal progress comes by events; the sweep is what makes the death of any process, and the loss of any message, harmless.
"""
import threading
import time

from oslo_log import log

from migrator import concurrency, exceptions, service
from migrator.conductor import later
from migrator.conductor.agents import Agents
from migrator.conductor.cursor import Policy
from migrator.conductor.db import ledger, promises, schema
from migrator.conductor.db.database import Database
from migrator.conductor.engine import Engine
from migrator.conductor.forgetting import Forgetting
from migrator.conductor.inspection import Inspection
from migrator.conductor.inventory import Inventory
from migrator.conductor.manager import AgentEndpoint, UserEndpoint
from migrator.conductor.payments import Payments
from migrator.conductor.recovery import Recovery
from migrator.conductor.requests import Requests
from migrator.conductor.versions import AgentVersions
from migrator.conductor.volume_inventory import VolumeInventory
from migrator.conductor.volume_manager import VolumeAgentEndpoint, VolumeEndpoint
from migrator.conductor.volume_requests import VolumeRequests
from migrator.rpc import contract, server
from migrator.rpc.compute import ComputeAPI
from migrator.rpc.volume import VolumeAPI
from migrator.states import AgentKind

LOG = log.getLogger(__name__)


#: Seconds between two looks at the versions that the agents announced.
REFRESH_SECONDS = 5.0

#: Seconds between two attempts to reach the database at the start.
RETRY_SECONDS = 2.0


class ConductorService(service.Service):
    """One conductor. Any number of them may run; they share the work through the database and keep nothing in memory."""

    def __init__(self, conf, transport, database=None):
        """conf: with the project's options registered. transport: migrator.rpc.transport.Transport. database: one to share, or None."""
        super().__init__('migrator-conductor', conf.host, conf.graceful_stop_timeout)
        settings = conf.conductor
        self.settings = settings
        self.horizon = Policy.of(settings).horizon
        self.database = database or Database(conf.database.connection)
        self.versions = AgentVersions(self.database, settings.host_down_after)
        self.volume_versions = AgentVersions(self.database, settings.host_down_after, contract.VOLUME_VERSION, AgentKind.VOLUME)
        agents = Agents(ComputeAPI(conf, transport, self.versions.lowest), VolumeAPI(conf, transport, self.volume_versions.lowest))
        self.pool = concurrency.Pool(settings.workers)
        self.engine = Engine(self.database, agents, settings.max_migrations_per_host)
        self.payments = Payments(self.database, agents, settings)
        self.requests = Requests(self.database, self.engine, settings)
        inspection = Inspection(self.database, agents, settings)
        recovery = Recovery(self.database, self.engine, self.requests, settings)
        self.forgetting = Forgetting(self.database, inspection, self.requests, settings)
        self._server = server.make_server(transport, contract.TOPIC_CONDUCTOR, self.host, [
            UserEndpoint(self.database, self.engine, self.requests, recovery, inspection, self.forgetting, agents, settings,
                         self.pool),
            VolumeEndpoint(self.database, settings, VolumeRequests(self.requests, self.database), self.engine, self.pool),
            VolumeAgentEndpoint(VolumeInventory(self.database, settings.poll_interval, self.volume_versions)),
            AgentEndpoint(self.engine, Inventory(self.database, settings.poll_interval, self.versions), self.payments, self.pool)])
        self._stop = threading.Event()
        self._serving = False
        self._sweeper = None
        self._refresh_at = 0.0
        self._waking = set()        # due, and waiting for a worker

    def start(self):
        """Check the schema, hear requests and begin to sweep. Waits for the database; SchemaMismatch if it is not this code's."""
        if not self._await_database():
            return
        self.requests.listening()
        self._server.start()
        self._serving = True
        self._sweeper = concurrency.spawn(self._sweep_for_ever)

    def _await_database(self):
        """Wait until the database answers; returns False if the conductor is to end meanwhile."""
        while not self._stop.is_set():
            try:
                schema.check(self.database)
                for words in promises.broken(self.database):
                    LOG.warning('The database server is set so that it may lose what it has acknowledged: %s', words)
                return True
            except exceptions.Unavailable as error:
                LOG.error('next attempt in %g s: %s', RETRY_SECONDS, error)
            self._stop.wait(RETRY_SECONDS)
        return False

    def drain(self):
        """Take nothing new, answer what was asked, finish the transitions that are being worked on, and let go of the rest.

        What waits is in the database. What cannot be finished in time, for an agent does not answer, is made due at once, so that
        another conductor does not wait until its claim ends.
        """
        self._stop.set()
        if self._serving:
            service.within(self.left_for_work(), 'the end of the RPC server', server.finish, self._server)
        if self._sweeper is not None:
            service.within(self.left_for_work(), 'the last sweep', self._sweeper.wait)
        self.engine.claims.wait_none(self.left_for_work())
        self.pool.wait_all(self.left_for_work())
        service.within(self.left(), 'letting go', self._let_go)
        self.database.dispose()

    def _let_go(self):
        left = self.engine.let_go()
        if left:
            LOG.warning('%d migrations are left to other conductors: %s', len(left), ', '.join(left))

    def _sweep_for_ever(self):
        while not self._stop.wait(self.settings.sweep_interval):
            try:
                self.sweep()
            except exceptions.Unavailable as error:     # as the database's own line says, once for all
                LOG.debug('The sweep will be done later: %s', error)
            except Exception:
                LOG.exception('The sweep failed; it goes on')

    def sweep(self):
        """Take up every workflow that is due, in turn with what agents report, and debts if a worker is free."""
        if time.monotonic() >= self._refresh_at:
            self._refresh_at = time.monotonic() + REFRESH_SECONDS
            self.versions.refresh()
            self.volume_versions.refresh()
        for migration_id in self.database.run(lambda tx: ledger.due(tx, self.settings.sweep_batch, self.horizon)):
            if migration_id not in self._waking:
                self._waking.add(migration_id)
                if not self.pool.queue(self._wake, migration_id):
                    self._waking.discard(migration_id)
                    return
        if not self.pool.try_spawn(self._collect):
            LOG.warning('all workers are busy; debts wait')

    def _collect(self):
        try:
            self.payments.collect()
        except exceptions.Unavailable as error:
            LOG.debug('debts will be looked at again: %s', error)
        except exceptions.MigratorError as error:
            LOG.warning('debts will be looked at again: %s', error)
        except Exception:
            LOG.exception('debts will be looked at again')

    def _wake(self, migration_id):
        self._waking.discard(migration_id)
        if self._stop.is_set():
            return      # it is due for every conductor
        later.wake(self.engine, migration_id)
