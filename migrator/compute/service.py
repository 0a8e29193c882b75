"""The compute agent put together: driver, journal, operations, endpoint and heartbeat."""
import os

from oslo_log import log
from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exception

from migrator import agent, exceptions
from migrator.compute.heartbeat import HeartbeatLoop
from migrator.compute.manager import ComputeManager
from migrator.compute.stalls import StallWatch
from migrator.rpc import contract
from migrator.rpc.steps import run_driver

LOG = log.getLogger(__name__)

DRIVERS = 'migrator.compute.drivers'

#: Seconds that an ending agent waits for a migration to end, which the hypervisor would finish by itself; and between two looks
#: whether it has begun to.
MIGRATION_GRACE = 3.0
LOOK_SECONDS = 0.2

#: Seconds before the hypervisor is tried again at the start; doubled up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0


def load_driver(conf, host):
    """Make the driver that `[compute] driver` names. Raises InvalidRequest in words if there is no such driver."""
    try:
        return stevedore_driver.DriverManager(DRIVERS, conf.compute.driver, invoke_on_load=True, invoke_args=(conf, host)).driver
    except stevedore_exception.NoMatches as error:
        raise exceptions.InvalidRequest(f'[compute] driver = {conf.compute.driver}: {error}') from None


class ComputeService(agent.AgentService):
    """A compute agent. conf: migrator's options. transport: rpc.transport.Transport. driver: None loads the configured one."""

    topic = contract.TOPIC_COMPUTE
    left_running = ('live_migration',)

    def __init__(self, conf, transport, driver=None):
        super().__init__('compute', conf, transport)
        self._driver = driver or load_driver(conf, conf.host)
        self.stalls = None

    @staticmethod
    def lock_path(conf):
        """Name the file that keeps a second agent of this host away."""
        return os.path.join(conf.state_path, f'{conf.host}-compute.lock')

    def journal_path(self):
        """Name the journal's file."""
        return os.path.join(self._conf.state_path, f'{self.host}-journal.db')

    def start_driver(self):
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

    def make_manager(self):
        """Make the endpoint."""
        return ComputeManager(self._driver, self.operations, self._journal, self.process_id)

    def make_heartbeat(self, up):
        """Make the heartbeat."""
        self.stalls = StallWatch(self._driver, self.manager.turns, self._settings.stall_interval)
        return HeartbeatLoop(self._driver, self.manager, self.operations, up, self.host, self.process_id, self.host_boot_id,
                             self._settings.heartbeat_interval, self._settings.progress_interval, notes=self.stalls.notes)

    def start(self):
        """See AgentService.start; then look after guests that wait for volumes."""
        super().start()
        if self.stalls is not None:
            self.stalls.start()

    def drain(self):
        """See AgentService.drain; guests that wait for volumes are our successor's."""
        if self.stalls is not None:
            self.stalls.stop()
        super().drain()

    def stop_driver(self):
        """Let go of the hypervisor."""
        self._driver.stop()

    def hand_over(self):
        """Wait a little for migrations to end, and until the hypervisor is seen to work on every one that is left."""
        self.operations.wait_idle(min(MIGRATION_GRACE, self.left_for_work()))
        while not self.manager.handed_over():
            if not self.left_for_work():
                LOG.warning('a migration that has not begun yet is left behind')
                return
            self.operations.wait_idle(min(LOOK_SECONDS, self.left_for_work()))
