"""All options of migrator. `etc/migrator/migrator.conf.sample` is generated from here and checked for drift."""
import socket

from oslo_config import cfg
from oslo_log import log

from migrator import concurrency, log_lines

CONF = cfg.CONF

#: Where the catalogue is unless [database] connection says otherwise: enough for a trial on one machine.
TRIAL_DATABASE = 'sqlite:////var/lib/migrator/migrator.db'

DEFAULT_OPTS = [
    cfg.StrOpt('host', default=socket.gethostname(), sample_default='the host name',
               help='Name by which this agent or conductor is known. It may differ from the hypervisor\'s own name for the host.'),
    cfg.StrOpt('state_path', default='/var/lib/migrator',
               help='Directory for what a daemon must remember: the agent\'s journal and the SQLite database, if one is used.'),
    cfg.FloatOpt('graceful_stop_timeout', default=40.0, min=1.0,
                 help='Seconds that a daemon takes at most to end in order after SIGTERM: it takes no new work, and finishes or hands over '
                      'what runs. Keep it below [conductor] host_lost_after, and below the time after which systemd kills.'),
]

UPGRADE_OPTS = [
    cfg.StrOpt('compute', default='auto', regex=r'(auto|[0-9]{1,4}\.[0-9]{1,4})$',
               help='Highest version of requests that conductors send to agents, such as 1.0. auto: what the oldest agent '
                    'that was heard of lately understands.'),
    cfg.StrOpt('volume', default='auto', regex=r'(auto|[0-9]{1,4}\.[0-9]{1,4})$',
               help='The same for requests to volume agents.'),
    cfg.StrOpt('conductor', default='', regex=r'([0-9]{1,4}\.[0-9]{1,4})?$',
               help='Highest version of requests that agents and the command line send to conductors. Empty: their own, for conductors are '
                    'upgraded first.'),
]

CONDUCTOR_OPTS = [
    cfg.IntOpt('workers', default=64, min=1, help='How many requests and workflow transitions one conductor works on at once.'),
    cfg.FloatOpt('sweep_interval', default=1.0, min=0.05,
                 help='Seconds between two looks for workflows that are due. Normal progress comes by events and does not wait for it.'),
    cfg.IntOpt('sweep_batch', default=200, min=1, help='How many due workflows one look takes at most.'),
    cfg.FloatOpt('claim_seconds', default=5.0, min=1.0,
                 help='For how long a conductor that works on a workflow keeps others away from it. A conductor that dies is '
                      'replaced after this time at the latest.'),
    cfg.FloatOpt('host_down_after', default=20.0, min=0.5,
                 help='A host not heard of for so many seconds is down. At least four times the heartbeat_interval of its agent, or one '
                      'lost heartbeat may make it look so.'),
    cfg.FloatOpt('host_lost_after', default=60.0, min=0.5,
                 help='After so many seconds without an answer a workflow stops waiting for a host: its cleanup becomes a debt, or '
                      'the migration stands in needs_operator.'),
    cfg.FloatOpt('observe_interval', default=2.0, min=0.05,
                 help='Seconds between two looks at the hosts while a migration job runs that no agent waits for.'),
    cfg.FloatOpt('retry_interval', default=2.0, min=0.05,
                 help='Seconds before a failed or unanswered step is tried again, doubled each time.'),
    cfg.IntOpt('step_attempts', default=5, min=1, help='How often a step that must succeed is tried before it is named as a debt.'),
    cfg.IntOpt('copy_attempts', default=5, min=1,
               help='How often in a row the copy of a volume may be interrupted, as by an agent that ends, without having come further, '
                    'before the migration is undone. A copy goes on behind what was flushed, so one that comes further each time is never '
                    'given up. More of them help where an agent ends again and again before it has copied anything; each costs a pause '
                    'that grows up to poll_interval.'),
    cfg.FloatOpt('poll_interval', default=30.0, min=0.05,
                 help='Seconds after which a running operation that was not heard of is asked for. A backstop: completion comes as '
                      'an event.'),
    cfg.IntOpt('max_migrations_per_host', default=4, min=1,
               help='How many live migrations one host takes part in at once, as source or destination. The rest is queued.'),
    cfg.IntOpt('completion_timeout', default=800, min=0,
               help='Seconds per GiB of memory and copied disk, 2 GiB each at least, after which a live migration is aborted; 0: never.'),
]

COMPUTE_OPTS = [
    cfg.StrOpt('driver', default='libvirt', help='Hypervisor driver: an entry point of migrator.compute.drivers.'),
    cfg.StrOpt('availability_zone', default='', help='Zone that this host reports.'),
    cfg.StrOpt('instances_path', default='/var/lib/migrator/instances',
               help='Directory for the disks of guests. Shared storage is detected by an identity file in it, not configured.'),
    cfg.ListOpt('extra_disk_paths', default=[], help='Further directories in which disks of guests may lie.'),
    cfg.ListOpt('boot_file_paths', default=['/var/lib/migrator/boot'],
                help='Directories with kernels and initial RAM disks that new guests may be booted from, symbolic links followed. The '
                     'hypervisor reads them with rights of its own: put nothing there that a guest must not see.'),
    cfg.FloatOpt('heartbeat_interval', default=5.0, min=0.05, help='Seconds between two heartbeats.'),
    cfg.FloatOpt('progress_interval', default=1.0, min=0.05,
                 help='Least seconds between two questions for the progress of one migration: each may hold up the hypervisor. The answers '
                      'travel with heartbeats.'),
    cfg.IntOpt('max_operations', default=32, min=1, help='How many operations the agent runs at once; more are refused with AgentBusy.'),
    cfg.FloatOpt('stall_interval', default=2.0, min=0.1,
                 help='Seconds between two looks for guests that a volume\'s I/O error has paused, and between two tries to let one go on. '
                      'One that stalls again soon is tried less often.'),
    cfg.FloatOpt('detach_timeout', default=30.0, min=1.0,
                 help='Seconds that a guest has to let go of a volume that is detached; if it does not, it keeps the volume.'),
    cfg.FloatOpt('report_interval', default=2.0, min=0.05, help='Seconds before an unacknowledged report is repeated.'),
]

VOLUME_OPTS = [
    cfg.ListOpt('enabled_backends', default=[],
                help='The arrays of this volume agent: names of configuration groups, one for each, as [example_qsd_backend] shows. A '
                     'pool is known as HOST@BACKEND#POOL.'),
    cfg.FloatOpt('heartbeat_interval', default=5.0, min=0.05, help='Seconds between two heartbeats.'),
    cfg.FloatOpt('progress_interval', default=1.0, min=0.05,
                 help='Least seconds between two questions for the progress of one migration. The answers travel with heartbeats.'),
    cfg.IntOpt('max_operations', default=32, min=1, help='How many operations the agent runs at once; more are refused with AgentBusy.'),
    cfg.FloatOpt('report_interval', default=2.0, min=0.05, help='Seconds before an unacknowledged report is repeated.'),
    cfg.StrOpt('tls_credentials', default='',
               help='Directory of x509 files (ca-cert.pem, client-cert.pem, client-key.pem) with which copies reach exports that want TLS, '
                    'where the backend that they go to has no tls_credentials of its own. Empty: such volumes are not copied there.'),
    cfg.FloatOpt('copy_patience', default=60.0, min=1.0,
                 help='Seconds for which neither end of a copy has answered anything, or one of them could not be reached any more, when '
                      'it is given up, and the migration is undone. It should be longer than the longest pause of an array that comes '
                      'back by itself, such as a restart, or a fail-over between its controllers.'),
]

#: What the group of every backend has.
BACKEND_OPTS = [
    cfg.StrOpt('driver', default='qsd', help='Driver of the array: an entry point of migrator.volume.drivers; qsd, file or fake.'),
    cfg.DictOpt('pools', default={}, help='Pools of the array with their directories: NAME:DIRECTORY, separated by commas.'),
    cfg.ListOpt('types', default=[], help='Volume types that it serves.'),
    cfg.StrOpt('array_id', default='',
               help='Identity of the array. Two backends that name the same one share it. Empty: nobody else manages it.'),
]

#: Of drivers whose LUNs are files that are exported over NBD.
EXPORT_OPTS = [
    cfg.StrOpt('listen_address', default='127.0.0.1', help='Address at which exports are reached by hypervisors and by other arrays.'),
    cfg.FloatOpt('array_timeout', default=10.0, min=0.1, help='Seconds for each answer of the storage daemon.'),
    cfg.FloatOpt('array_patience', default=60.0, min=1.0,
                 help='Seconds for which a storage daemon that does not answer, or a LUN that is being worked on, is waited for.'),
]

QSD_OPTS = [
    cfg.StrOpt('qmp_socket', default='/run/migrator/array.qmp', help='QMP socket of the qemu-storage-daemon that is the array.'),
    cfg.PortOpt('listen_port', default=10809, help='Port at which the storage daemon\'s NBD server listens.'),
    cfg.StrOpt('format', default='qcow2', choices=['qcow2', 'raw'], help='Format of new LUNs.'),
    cfg.StrOpt('tls_credentials', default='',
               help='Directory of x509 files with which the storage daemon connects to other arrays. Empty: no TLS.'),
    cfg.StrOpt('take_over', default='async', choices=['async', 'sync', 'no'],
               help='How the array takes over volumes of other arrays as a migration\'s target. async: they can be attached while their '
                    'data is on its way, and then need both arrays until it is there. sync: only once it is there. no: they are copied.'),
    *EXPORT_OPTS,
]

FILE_OPTS = [
    cfg.IntOpt('first_port', default=10900, min=1, max=65535, help='First of the ports for exports: each exported LUN takes one.'),
    cfg.IntOpt('last_port', default=10999, min=1, max=65535, help='Last of them.'),
    cfg.StrOpt('run_directory', default='/run/migrator/volume', help='Directory for the sockets of the storage daemons that export LUNs.'),
    *EXPORT_OPTS,
]

FAKE_ARRAY_OPTS = [
    cfg.StrOpt('world', default='', help='File that holds the simulated arrays, shared by all simulated backends.'),
    cfg.StrOpt('take_over', default='async', choices=['async', 'sync', 'no'],
               help='How the simulated array takes a volume over as a migration\'s target, if it does.'),
    cfg.BoolOpt('moves', default=False, help='Whether the simulated array moves volumes away by itself as a migration\'s source.'),
    cfg.FloatOpt('migration_seconds', default=0.5, min=0, help='How long a simulated mirror or copy takes at least.'),
    cfg.IntOpt('bandwidth_mib', default=1024, min=1, help='Simulated bandwidth of mirrors in MiB a second.'),
    cfg.IntOpt('capacity_mib', default=65536, min=1, help='Size of each simulated pool.'),
    cfg.ListOpt('faults', default=[],
                help='Faults to simulate, as METHOD=ACTION: fail, hang, slow:SECONDS. For tests and for trying out.'),
]

LIBVIRT_OPTS = [
    cfg.StrOpt('connection_uri', default='qemu:///system', help='The local libvirtd.'),
    cfg.StrOpt('live_migration_uri', default='',
               help='What other hosts\' libvirtds connect to, such as qemu+tcp://10.0.0.1/system. Empty: qemu+tls:// and '
                    'live_migration_address.'),
    cfg.StrOpt('live_migration_address', default='', help='Address that takes the migration stream. Empty: this host\'s name.'),
    cfg.StrOpt('listen_address', default='127.0.0.1', help='Address to which graphics and TCP consoles of guests bind.'),
    cfg.StrOpt('virt_type', default='auto', choices=['auto', 'kvm', 'qemu'],
               help='Domain type of new guests. auto: kvm where libvirt offers it.'),
    cfg.StrOpt('cpu_model', default='', help='CPU model of new guests. Empty: host-model with KVM, qemu64 with TCG.'),
]

FAKE_OPTS = [
    cfg.StrOpt('world', default='', help='File that holds the simulated hosts and guests, shared by all simulated agents.'),
    cfg.FloatOpt('migration_seconds', default=0.5, min=0, help='How long a simulated live migration takes at least.'),
    cfg.IntOpt('bandwidth_mib', default=1024, min=1, help='Simulated memory bandwidth in MiB a second.'),
    cfg.IntOpt('memory_mib', default=65536, min=1, help='Memory of a simulated host.'),
    cfg.IntOpt('cpus', default=32, min=1, help='CPUs of a simulated host.'),
    cfg.ListOpt('faults', default=[],
                help='Faults to simulate, as METHOD=ACTION: fail, hang, slow:SECONDS. For tests and for trying out.'),
]

GROUPS = (('DEFAULT', DEFAULT_OPTS), ('conductor', CONDUCTOR_OPTS), ('compute', COMPUTE_OPTS), ('volume', VOLUME_OPTS),
          ('libvirt', LIBVIRT_OPTS), ('upgrade_levels', UPGRADE_OPTS), ('fake', FAKE_OPTS))

#: Groups that exist only under names that operators give: what the sample shows.
EXAMPLES = (('example_qsd_backend', BACKEND_OPTS + QSD_OPTS), ('example_file_backend', BACKEND_OPTS + FILE_OPTS),
            ('example_fake_backend', BACKEND_OPTS + FAKE_ARRAY_OPTS))


def register(conf=CONF):
    """Register every option on `conf`. Idempotent."""
    for group, options in GROUPS:
        conf.register_opts(options, group=None if group == 'DEFAULT' else group)
    return conf


def list_opts():
    """Give oslo-config-generator what to document: pairs of group name and options."""
    return [(group, options) for group, options in GROUPS + EXAMPLES]


def backend(conf, name):
    """Register the options that every backend has on the group `name`, and give the group."""
    conf.register_opts(BACKEND_OPTS, group=name)
    return conf[name]


def setup(argv, prog, conf=CONF, default_config_files=None):
    """Parse the command line and configuration files of a daemon and set up logging.

    argv: arguments without the program's name. Raises oslo.config's errors, which name the option.
    """
    register(conf)
    log.register_options(conf)
    log.set_defaults(
        logging_context_format_string='%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s '
                                      '[req %(request_id)s mig %(migration_id)s] %(instance)s%(message)s',
        default_log_levels=[*log.get_default_log_levels(), 'oslo_messaging=WARN', 'amqp=WARN', 'alembic=WARN'])
    conf(argv, project='migrator', prog=prog, default_config_files=default_config_files)
    log.setup(conf, 'migrator')
    concurrency.mend_logging()
    log_lines.setup()
    return conf
