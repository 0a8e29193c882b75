"""What the agents' daemons have in common: journal, operations, endpoint and heartbeat, put together and taken apart in order."""
import threading

from oslo_log import log

from migrator import concurrency, exceptions, service
from migrator.rpc import conductor, facts, journal, server
from migrator.rpc.agent import OperationServer

LOG = log.getLogger(__name__)

#: Seconds that an ending agent waits until a conductor has heard of what ended last.
TELL_SECONDS = 5.0


class AgentService(service.Service):
    """Base of the agents. conf: migrator's options. transport: rpc.transport.Transport. kind: compute or volume."""

    #: The topic that is listened to.
    topic = ''
    #: Methods that an ending agent does not wait for: what they wait for goes on without it, or is gone on with by its successor.
    left_running = ()

    def __init__(self, kind, conf, transport):
        super().__init__(f'migrator-{kind}', conf.host, conf.graceful_stop_timeout)
        if not facts.HOST.match(conf.host):
            raise exceptions.InvalidRequest(f'host = {conf.host!r} is not allowed: letters, digits, dot, dash and underscore, 64 at most')
        self._conf = conf
        self._transport = transport
        self._settings = conf[kind]
        self._ending = threading.Event()
        self._journal = None
        self._server = None

    @staticmethod
    def lock_path(conf):
        """Name the file that keeps a second agent of the kind and host away."""
        raise NotImplementedError

    def start(self):
        """Open the journal, reach what the agent is for (waiting for it if need be), listen, and begin to report and beat."""
        self._journal = journal.Journal(self.journal_path())
        if not self.start_driver():
            return
        up = conductor.AgentToConductorAPI(self._conf, self._transport, self._settings.heartbeat_interval)
        self.operations = OperationServer(self._journal, up, self.host, self.process_id, self.host_boot_id,
                                          self._settings.max_operations, self._settings.report_interval)
        self.manager = self.make_manager()
        self.heartbeat = self.make_heartbeat(up)
        serving = server.make_server(self._transport, self.topic, self.host, [self.manager])
        serving.start()  # waits for the broker
        self._server = serving
        self.operations.start()
        self.heartbeat.start()

    # --- what each kind says ---

    def journal_path(self):
        """Name the journal's file."""
        raise NotImplementedError

    def start_driver(self):
        """Reach the hypervisor or the arrays; returns False if the agent is to end meanwhile."""
        raise NotImplementedError

    def make_manager(self):
        """Make the endpoint."""
        raise NotImplementedError

    def make_heartbeat(self, up):
        """Make the heartbeat. up: AgentToConductorAPI."""
        raise NotImplementedError

    def hand_over(self):
        """See that what is left running goes on without the agent."""

    def stop_driver(self):
        """Let go of the hypervisor or the arrays; called in a native thread."""
        raise NotImplementedError

    # --- the end ---

    def drain(self):
        """Refuse new operations, finish the short ones, leave the long ones to those who really do them, and end.

        Questions are answered and heartbeats sent until the end, so that nobody takes the host for dead.
        """
        self._ending.set()
        if self._server is not None:
            self.operations.drain()
            service.within(self.left(5), 'the heartbeat that says so', self.heartbeat.beat)
            if not self.operations.wait_idle(self.left_for_work(), ignored=self.left_running):
                LOG.warning('not all operations have ended in time; they will be reported as interrupted')
            self.hand_over()
            self.operations.wait_told(min(TELL_SECONDS, self.left_for_work()))
            self.heartbeat.stop()
            service.within(self.left(5), 'the last heartbeat', self.heartbeat.beat)
            service.within(self.left(10), 'the end of the RPC server', server.finish, self._server)
            self.operations.stop()
        service.within(self.left(10), 'the end of the driver', concurrency.run_native, self.stop_driver)
        if self._journal is not None:
            service.within(self.left(5), 'the end of the journal', concurrency.run_native, self._journal.close)
