"""Volume agents with simulated arrays, for the small cloud within one process (tests.simulated)."""
import uuid

from migrator import config, exceptions
from migrator.volume.backends import Backend, Backends
from migrator.volume.drivers.fake.driver import FakeArrayDriver
from migrator.volume.drivers.fake.world import Arrays
from migrator.volume.service import VolumeService

#: Options of every simulated backend.
FAST_ARRAY = {'pools': {'fast': '-', 'slow': '-'}, 'migration_seconds': 0.1, 'capacity_mib': 1024}


class MortalArray(FakeArrayDriver):
    """The simulated driver of an agent that a test may kill: nothing it was about to do happens after its death."""

    dead = False

    def _act(self):
        if self.dead:
            raise exceptions.DriverError('the agent was killed')
        return super()._act()


class VolumeAgents:
    """The part of a Cloud that has arrays.

    wanted: {host: {backend: options}}, options as config.FAKE_ARRAY_OPTS and BACKEND_OPTS. world: Arrays, to script and to look at. agents:
    VolumeServices by host.
    """

    def __init__(self, wanted, make_conf, connect):
        """make_conf: host -> options. connect: (name of a connection, options) -> Transport."""
        self.wanted = wanted
        self.agents = {}
        self.world = Arrays(f'memory:{uuid.uuid4()}')
        self._make_conf = make_conf
        self._connect = connect

    def start(self, host):
        """Start a host's volume agent, whose journal outlives it."""
        conf = self._make_conf(host)
        made = Backends([self._backend(conf, host, name, options) for name, options in self.wanted[host].items()])
        agent = VolumeService(conf, self._connect(f'volume-{host}', conf), made)
        agent.start()
        self.agents[host] = agent
        return agent

    def _backend(self, conf, host, name, options):
        group = config.backend(conf, name)
        conf.register_opts(MortalArray.options, group=name)
        for option, value in {'driver': 'fake', 'world': self.world.name, **FAST_ARRAY, **options}.items():
            conf.set_override(option, value, group=name)
        return Backend(name, MortalArray(group, host, name), 'fake', tuple(group.types), group.array_id)

    def kill(self, host):
        """End a host's volume agent as a SIGKILL does: nothing is drained, told or written any more. The arrays go on; copies do not."""
        agent = self.agents.pop(host)
        for backend in agent.backends.all():
            backend._driver.dead = True
        agent.operations.stop()
        agent.heartbeat.stop()
        agent._server.stop()
        agent.backends.end()
        agent.copying.stop()
        agent.backends.stop()
        agent._journal.close()

    def stop(self, host):
        """End a host's volume agent in order."""
        self.agents.pop(host).stop()

    def restart(self, host):
        """Kill a host's volume agent and start it again."""
        self.kill(host)
        return self.start(host)

    def end(self):
        """Take all of them down."""
        self.world.release()
        for host in list(self.agents):
            self.kill(host)
