"""The contract suite's hands on simulated arrays."""
import contextlib
import functools
import uuid

from oslo_config import cfg

from migrator import config, exceptions
from migrator.volume.drivers.fake import blocks
from migrator.volume.drivers.fake.driver import FakeArrayDriver
from migrator.volume.drivers.fake.world import Arrays
from tests.contract import volume_driver


def array_conf(world, backend='a', pools='fast', **options):
    """Options of a simulated backend in `world`. pools: their names."""
    conf = cfg.ConfigOpts()
    conf([], project='migrator', default_config_files=[])
    group = config.backend(conf, backend)
    conf.register_opts(FakeArrayDriver.options, group=backend)
    for name, value in {'pools': dict.fromkeys(pools.split(), '-'), 'world': world, 'migration_seconds': 0.1, 'capacity_mib': 256,
                        **options}.items():
        conf.set_override(name, value, group=backend)
    return group


class FakeArrayHarness(volume_driver.VolumeHarness):
    """Two simulated arrays in one world."""

    def __init__(self, world=None, **options):
        self.world = Arrays(world or f'memory:{uuid.uuid4()}')
        self.options = options
        self.a, self.b = self.driver('a'), self.driver('b')

    def driver(self, name):
        """Start a driver of one array."""
        made = FakeArrayDriver(array_conf(self.world.name, name, **self.options), 'host', name)
        made.start()
        return made

    def write(self, connection, offset, length, byte):
        self.world.write(connection.uri, offset, length, byte)

    @contextlib.contextmanager
    def writer(self, connection):
        yield functools.partial(self.write, connection)

    def read(self, connection):
        return b''.join(bytes([value]) * blocks.BLOCK for value in self.world.read(connection.uri))

    def serves(self, connection):
        try:
            self.world.read(connection.uri)
        except exceptions.DriverError:
            return False
        return True

    def holding(self, connection):
        return self.world.holding(connection.uri)

    def left(self, driver):
        return {name for _array, pool, name, _owner in self.world.luns(driver.name) if pool == 'fast'}

    def restart_array(self, driver):
        self.world.kill(driver.name)
        self.world.start(driver.name)

    def restart_driver(self, driver):
        driver.stop()
        return self.driver(driver.backend)
