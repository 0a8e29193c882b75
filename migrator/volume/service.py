"""The volume agent put together: backends, copies, journal, operations, endpoint and heartbeat."""
import os

from migrator import agent, concurrency
from migrator.rpc import contract
from migrator.volume import backends as volume_backends
from migrator.volume.copying import Copying
from migrator.volume.heartbeat import HeartbeatLoop
from migrator.volume.manager import VolumeManager


class VolumeService(agent.AgentService):
    """A volume agent. conf: migrator's options. transport: rpc.transport.Transport. backends: None loads the configured ones."""

    topic = contract.TOPIC_VOLUME
    #: A mirror goes on in its array, a copy behind what was flushed.
    left_running = ('complete_migration_target', 'copy_volume', 'verify_volume')

    def __init__(self, conf, transport, backends=None):
        super().__init__('volume', conf, transport)
        self.backends = backends or volume_backends.load(conf, conf.host)
        self.copying = Copying(os.path.join(conf.state_path, f'{conf.host}-copies'), self.backends.copier,
                               patience=self._settings.copy_patience)

    @staticmethod
    def lock_path(conf):
        """Name the file that keeps a second volume agent of this host away."""
        return os.path.join(conf.state_path, f'{conf.host}-volume.lock')

    def journal_path(self):
        """Name the journal's file."""
        return os.path.join(self._conf.state_path, f'{self.host}-volume-journal.db')

    def start_driver(self):
        """Begin to reach the arrays; those that are not there yet are waited for in the background."""
        self.backends.start()
        return not self._ending.is_set()

    def make_manager(self):
        """Make the endpoint. Before anybody asks: of copies that ended with the last process, the journal learns how far they came."""
        concurrency.run_native(self.copying.recall, self._journal)
        return VolumeManager(self.backends, self.copying, self.operations, self._journal, self.host, self.process_id,
                             self._settings.tls_credentials)

    def make_heartbeat(self, up):
        """Make the heartbeat."""
        return HeartbeatLoop(self.backends, self.manager, self.operations, up, self.host, self.process_id, self.host_boot_id,
                             self._settings.heartbeat_interval, self._settings.progress_interval)

    def drain(self):
        """End as all agents do, and reach for no array any more."""
        self.backends.end()
        super().drain()

    def stop_driver(self):
        """End the copies, which go on behind what was flushed, and let go of the arrays."""
        self.copying.stop()
        self.backends.stop()
