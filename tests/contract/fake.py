"""The contract suite's hands on the simulated hypervisor."""
import uuid

from oslo_config import cfg

from migrator import config
from migrator.compute.drivers.fake.driver import FakeDriver
from migrator.compute.drivers.fake.world import World
from migrator.rpc import facts, volume_facts
from migrator.states import GuestState, PauseReason
from tests.contract import harness

PRIVATE, SHARED = '/instances', '/shared'


def fake_conf(world, **fake):
    """Options of a simulated agent: [fake] world and more of [fake]; a private and a second directory."""
    conf = config.register(cfg.ConfigOpts())
    conf([], project='migrator', default_config_files=[])
    conf.set_override('instances_path', PRIVATE, group='compute')
    conf.set_override('extra_disk_paths', [SHARED], group='compute')
    conf.set_override('detach_timeout', 1.0, group='compute')
    for name, value in {'world': world, 'migration_seconds': 0.05, **fake}.items():
        conf.set_override(name, value, group='fake')
    return conf


class FakeHarness(harness.ComputeHarness):
    """Two simulated hosts, alpha and beta, in one world."""

    slow_mib = 2
    restless_mib = 500
    patience = 20.0
    kernel = '/var/lib/migrator/boot/vmlinuz'

    def __init__(self, world=None, **fake):
        self.name = world if world is not None else f'memory:{uuid.uuid4()}'
        self.world = World(self.name)
        self.world.share(SHARED, ['alpha', 'beta'])
        self.conf = fake_conf(self.name, **fake)
        self.a, self.b = FakeDriver(self.conf, 'alpha'), FakeDriver(self.conf, 'beta')
        self.a.start()
        self.b.start()

    def spec(self, shared=False, restless=False, disks=1, busy=False):
        uuid_ = str(uuid.uuid4())
        directory = SHARED if shared else PRIVATE
        return facts.InstanceSpec(
            uuid=uuid_, name=f'guest-{uuid_[:8]}', memory_mib=64, vcpus=1, cmdline='dirty_mib=600' if restless else '',
            disks=tuple(facts.NewDisk(target=f'vd{letter}', size=1 << 24, directory=directory) for letter in 'abcdef'[:disks]))

    def drop_foreign_file(self, driver, spec):
        self.world.add_file(driver.host, spec.disks[0].directory, spec.uuid, f'{spec.disks[0].target}.qcow2')

    def files(self, driver, instance_uuid):
        return frozenset(f'{f["directory"]}/{f["name"]}' for f in self.world.files(instance_uuid, driver.host))

    def marker(self, driver, instance_uuid):
        owners = {f['owner'] for f in self.world.files(instance_uuid, driver.host)}
        return ' '.join(sorted(o.removeprefix('migration:') for o in owners if o.startswith('migration:')))

    def stamp(self, driver, instance_uuid, text):
        self.world.stamp(driver.host, instance_uuid, text)

    def stamped(self, driver, instance_uuid):
        return next(f['stamp'] for f in self.world.files(instance_uuid, driver.host))

    def pause(self, driver, instance_uuid):
        self.world.set_state(driver.host, instance_uuid, GuestState.PAUSED, PauseReason.USER)

    def resume(self, driver, instance_uuid):
        self.world.set_state(driver.host, instance_uuid, GuestState.RUNNING)

    def pause_by_migration(self, driver, instance_uuid):
        self.world.set_state(driver.host, instance_uuid, GuestState.PAUSED, PauseReason.MIGRATION)

    def power_off(self, driver, instance_uuid):
        self.world.power_off(instance_uuid)

    def carry(self, instance_uuid):
        self.world.carry(instance_uuid, self.a.host, self.b.host)

    def export(self, writable=True):
        return volume_facts.Connection(f'nbd://array:10809/lun-{uuid.uuid4()}', writable=writable, size=1 << 24)

    def set_export(self, connection, answers):
        self.world.set_export(connection.uri, answers)

    def close(self):
        self.a.stop()
        self.b.stop()
