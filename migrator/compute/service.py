"""The compute agent put together: driver, journal, operations, endpoint and heartbeat."""
import os
import threading

from oslo_log import log
from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exception

from migrator import concurrency, exceptions, service
from migrator.compute.heartbeat import HeartbeatLoop
from migrator.compute.manager import ComputeManager, run_driver
from migrator.rpc import conductor, contract, facts, journal, server
from migrator.rpc.agent import OperationServer

LOG = log.getLogger(__name__)

DRIVERS = 'migrator.compute.drivers'

#: Seconds that an ending agent waits for its short operations, and for a migration, which the hypervisor finishes by itself.
DRAIN_SECONDS = 60.0
MIGRATION_GRACE = 3.0

#: Seconds before the hypervisor is tried again at the start; doubled up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0


def load_driver(conf, host):
    """Make the driver that `[compute] driver` names. Raises InvalidRequest in words if there is no such driver."""
    try:
        return stevedore_driver.DriverManager(DRIVERS, conf.compute.driver, invoke_on_load=True, invoke_args=(conf, host)).driver
    except stevedore_exception.NoMatches as error:
        raise exceptions.InvalidRequest(f'[compute] driver = {conf.compute.driver}: {error}') from None


class ComputeService(service.Service):
    """A compute agent. conf: migrator's options. transport: rpc.transport.Transport. driver: None loads the configured one."""

    def __init__(self, conf, transport, driver=None):
        super().__init__('migrator-compute', conf.host)
        if not facts.HOST.match(conf.host):
            raise exceptions.InvalidRequest(f'host = {conf.host!r} is not allowed: letters, digits, dot, dash and underscore, 64 at most')
        self._conf = conf
        self._transport = transport
        self._driver = driver or load_driver(conf, conf.host)
        self._ending = threading.Event()
        self._journal = None
        self._server = None

    @staticmethod
    def lock_path(conf):
        """Name the file that keeps a second agent of this host away."""
        return os.path.join(conf.state_path, f'{conf.host}-compute.lock')

    def start(self):
        """Open the journal, reach the hypervisor (waiting for it if need be), listen, and begin to report and beat."""
        conf = self._conf
        self._journal = journal.Journal(os.path.join(conf.state_path, f'{self.host}-journal.db'))
        if not self._start_driver():
            return
        up = conductor.AgentToConductorAPI(conf, self._transport)
        self.operations = OperationServer(self._journal, up, self.host, self.process_id, self.host_boot_id,
                                          conf.compute.max_operations, conf.compute.report_interval)
        manager = ComputeManager(self._driver, self.operations, self._journal, self.process_id)
        self.heartbeat = HeartbeatLoop(self._driver, manager, self.operations, up, self.host, self.process_id, self.host_boot_id,
                                       conf.compute.heartbeat_interval, conf.compute.progress_interval)
        serving = server.make_server(self._transport, contract.TOPIC_COMPUTE, self.host, [manager])
        serving.start()  # waits for the broker
        self._server = serving
        self.operations.start()
        self.heartbeat.start()

    def _start_driver(self):
        """Start the driver, again and again while its hypervisor cannot be reached; returns False if the agent is to end meanwhile."""
        pause = FIRST_PAUSE
        while not self._ending.is_set():
            try:
                run_driver(self._driver.start)
                return True
            except exceptions.DriverError as error:
                LOG.error('the hypervisor cannot be reached, next attempt in %g s: %s', pause, error)
            self._ending.wait(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        return False

    def stop(self):
        """Refuse new operations, tell the conductor, finish short operations, leave migrations to the hypervisor, and end."""
        self._ending.set()
        if self._server is not None:
            self.operations.drain()
            self.heartbeat.stop()
            service.within(5, 'the last heartbeat', self.heartbeat.beat)
            if not self.operations.wait_idle(DRAIN_SECONDS, ignored=('live_migration',)):
                LOG.warning('not all operations have ended within %g s', DRAIN_SECONDS)
            self.operations.wait_idle(MIGRATION_GRACE)
            service.within(10, 'the end of the RPC server', self._server.stop)
            self.operations.stop()
        service.within(10, 'the end of the driver', concurrency.run_native, self._driver.stop)
        if self._journal is not None:
            service.within(5, 'the end of the journal', concurrency.run_native, self._journal.close)
