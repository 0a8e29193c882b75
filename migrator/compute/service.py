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

#: Seconds that an ending agent waits for a migration to end, which the hypervisor would finish by itself; and between two looks
#: whether it has begun to.
MIGRATION_GRACE = 3.0
LOOK_SECONDS = 0.2

#: Seconds that an ending agent waits until a conductor has heard of what ended last.
TELL_SECONDS = 5.0

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
        super().__init__('migrator-compute', conf.host, conf.graceful_stop_timeout)
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
        self.manager = manager = ComputeManager(self._driver, self.operations, self._journal, self.process_id)
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

    def drain(self):
        """Refuse new operations, finish the short ones, leave migrations to the hypervisor once it has them, and end.

        Questions are answered and heartbeats sent until the end, so that nobody takes the host for dead.
        """
        self._ending.set()
        if self._server is not None:
            self.operations.drain()
            service.within(self.left(5), 'the heartbeat that says so', self.heartbeat.beat)
            if not self.operations.wait_idle(self.left_for_work(), ignored=('live_migration',)):
                LOG.warning('not all operations have ended in time; they will be reported as interrupted')
            self.operations.wait_idle(min(MIGRATION_GRACE, self.left_for_work()))
            self._hand_over()
            self.operations.wait_told(min(TELL_SECONDS, self.left_for_work()))
            self.heartbeat.stop()
            service.within(self.left(5), 'the last heartbeat', self.heartbeat.beat)
            service.within(self.left(10), 'the end of the RPC server', server.finish, self._server)
            self.operations.stop()
        service.within(self.left(10), 'the end of the driver', concurrency.run_native, self._driver.stop)
        if self._journal is not None:
            service.within(self.left(5), 'the end of the journal', concurrency.run_native, self._journal.close)

    def _hand_over(self):
        """Wait until the hypervisor is seen to work on every migration that is left: it then goes on without us."""
        while not self.manager.handed_over():
            if not self.left_for_work():
                LOG.warning('a migration that has not begun yet is left behind')
                return
            self.operations.wait_idle(min(LOOK_SECONDS, self.left_for_work()))
