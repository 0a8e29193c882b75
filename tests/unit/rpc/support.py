"""What the RPC and agent tests share: configuration, sample messages, a conductor that only listens."""
import queue
import threading
import time
import uuid

from oslo_config import cfg

from migrator import config, exceptions
from migrator.rpc import context, contract, facts, server, transport, volume_facts

DEADLINE = 10.0


def make_conf(**values):
    """Make options of their own, with `values` of group__name or name."""
    conf = config.register(cfg.ConfigOpts())
    conf([], project='migrator', default_config_files=[], default_config_dirs=[])
    for key, value in values.items():
        group, _, name = key.rpartition('__')
        conf.set_override(name, value, group=group or None)
    return conf


def make_transport(url='fake://'):
    """Make a transport; the in-memory one joins all of one process."""
    return transport.get_transport(make_conf(), url)


def new_host():
    """Make up a host's name: queues in memory outlive a test."""
    return f'host-{uuid.uuid4().hex[:12]}'


def new_context():
    """Make a context that is not the thread's current one."""
    return context.MigratorContext(request_id='req-test', migration_id='mig-test', user='tester', overwrite=False)


def envelope(method='pre_live_migration', migration_id=None, epoch=1, attempt=1, **values):
    """Make an Envelope of a migration."""
    migration_id = migration_id or str(uuid.uuid4())
    return facts.Envelope(op_id=f'{migration_id}/{method}/{attempt}', migration_id=migration_id, epoch=epoch, **values)


def plan(migration_id=None, instance_uuid=None):
    """Make a Plan."""
    return facts.Plan(migration_id=migration_id or str(uuid.uuid4()), instance_uuid=instance_uuid or str(uuid.uuid4()),
                      source_host='host-a', destination_host='host-b')


def attachment(**values):
    """Make an Attachment of a volume to a guest, as `attach_volume` is given one."""
    connection = volume_facts.Connection('nbd://array.test:10809/lun', writable=True, size=1 << 24)
    ids = {name: str(uuid.uuid4()) for name in ('id', 'volume_id', 'instance_uuid')}
    return volume_facts.Attachment(**{**ids, 'connection': connection, **values})


def wait_for(condition, what='the condition', timeout=DEADLINE):
    """Wait until `condition()` is true and give its value. Raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f'{what} did not come about within {timeout} s')


class ListeningConductor:
    """In place of AgentToConductorAPI: keeps what agents tell, or raises what a test lets it raise."""

    def __init__(self):
        self.reports = queue.Queue()
        self.heartbeats = []
        self.answer = {'resync': False}
        self.attempts = 0
        self.failing = None         # an exception, raised instead of hearing
        self.refused = {}           # op_id -> exception
        self._lock = threading.Lock()

    def operation_finished(self, context, report):
        """Hear a report."""
        with self._lock:
            self.attempts += 1
        if report.op_id in self.refused:
            raise self.refused[report.op_id]
        if self.failing is not None:
            raise self.failing
        self.reports.put(report)

    def heartbeat(self, context, heartbeat):
        """Hear a heartbeat."""
        self.heartbeats.append(heartbeat)
        if self.failing is not None:
            raise self.failing
        return self.answer

    def next_report(self):
        """Give the next report that was heard."""
        return self.reports.get(timeout=DEADLINE)


class SampleEndpoint:
    """An endpoint with a few methods of the compute contract."""

    target = server.target(contract.COMPUTE_VERSION)

    def __init__(self):
        self.calls = []
        self.contexts = []

    @server.exposed(contract.COMPUTE)
    def locate_instance(self, context, instance_uuid, migration_id, epoch):
        """Answer, or fail as the argument says."""
        self.calls.append(instance_uuid)
        self.contexts.append(context)
        if instance_uuid == 'stale':
            raise exceptions.StaleEpoch('epoch 3 is outdated')
        if instance_uuid == 'defect':
            raise KeyError('no such key')
        if instance_uuid == 'os-error':
            raise ConnectionRefusedError('libvirtd')
        return facts.to_wire(facts.Location(process_id=instance_uuid))

    @server.exposed(contract.COMPUTE)
    def get_operation(self, context, op_id):
        """Answer with what is no Report."""
        return {'op_id': 5}

    def not_exposed(self, context):
        """Never to be called from outside."""
        self.calls.append('not_exposed')
