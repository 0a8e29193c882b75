"""A lab: its hosts, its services, its shared storage and its guests' kernel, built and taken down."""
import json
import os
import pathlib
import re

from tests.lab import guest, network, processes, services
from tests.lab.config import Configuration
from tests.lab.errors import LabError
from tests.lab.host import Host, Services
from tests.lab.record import Lock, Record, clean_dead, keepers, taken_subnets

NAMES = ('alpha', 'beta', 'gamma', 'delta')
NAME = re.compile(r'[a-z][a-z0-9]{0,14}\Z')
NEEDED = {'ip': 'iproute2', 'nsenter': 'util-linux', 'libvirtd': 'libvirt-daemon', 'virsh': 'libvirt-clients',
          'qemu-system-x86_64': 'qemu-system-x86', 'qemu-img': 'qemu-utils'}


class Lab:
    """A lab in a folder. `up` makes it, or `attach` joins one that stands; `down` leaves nothing of it."""

    def __init__(self, folder, hosts=2, names=None):
        """Describe a lab in `folder` with `hosts` hosts (1 to 4), or with hosts of the given `names`; nothing is made."""
        self.names = tuple(names or NAMES[:hosts])
        if not 1 <= len(self.names) <= 4 or (not names and hosts != len(self.names)):
            raise LabError(f'a lab has 1 to 4 hosts, not {hosts if not names else len(names)}')
        wrong = [name for name in self.names if not NAME.match(name) or name in ('svc', 'outside', network.BRIDGE)]
        if wrong or len(set(self.names)) != len(self.names):
            raise LabError(f'names of hosts are up to 15 lower-case letters and digits, each its own, not {", ".join(self.names)}')
        self.record = Record(folder)
        self.folder = self.record.folder
        self.id = self.record.id
        self.lock = Lock(self.id)
        self.hosts, self.svc = {}, None
        self.daemons, self.configuration = {}, None
        self.shared = self.folder / 'shared'                         # one directory for all hosts: shared storage
        self.instances = self.folder / 'instances'                   # another directory behind this path on every host
        self.initrd = self.folder / 'guest' / 'initrd.gz'

    # --- building ---

    def up(self, keep=False):
        """Build the lab; what dead labs left, of this folder or of others, is removed first. Returns self.

        keep: the lab outlives this process (`tools/lab up`). Otherwise it belongs to this process and ends with it, however that ends.
        A kept lab that stands with the same hosts is joined. LabError when another process is at it, it stands with other hosts, or
        something is missing on the machine; then nothing is left.
        """
        self._check_machine()
        if not self.lock.acquire():
            raise LabError(f'another process builds or owns the lab in {self.folder}')
        try:
            clean_dead(apart_from=self.id)
            if self.record.standing():
                return self._join_standing(keep)
            self.record.erase()
            self._build(keep)
        except BaseException:
            if not self.hosts:
                self.lock.release(remove=not self.record.note.exists())
            else:
                self._give_up()
            raise
        if keep:
            self.lock.release()
        return self

    def _check_machine(self):
        if os.geteuid() != 0:
            raise LabError('the lab needs root: it makes network namespaces and mounts')
        missing = sorted({package for program, package in NEEDED.items() if not services.find_program(program)})
        if missing:
            raise LabError(f'missing on this machine; install: apt-get install {" ".join(missing)}')

    def _join_standing(self, keep):
        if not keep or tuple(self.record.data['hosts']) != self.names:
            raise LabError(f'a lab with hosts {", ".join(self.record.data["hosts"])} is up in {self.folder}; take it down first')
        self._places(self.record.data['subnet'])
        self.lock.release()
        return self

    def _build(self, keep):
        with Lock('').hold():
            subnet = network.choose_subnet(self.id, taken_subnets(self.id))
            self.record.begin(hosts=list(self.names), subnet=subnet, services={})
        self._places(subnet)
        for folder in ('etc', 'hosts', 'shared', 'instances', 'guest', 'log', 'daemons', 'services', 'state'):
            (self.folder / folder).mkdir(exist_ok=True)
        lines = [f'{place.ip} {place.libvirt_name} {place.name}' for place in (self.svc, *self.hosts.values())]
        (self.folder / 'etc' / 'hosts').write_text('\n'.join(['127.0.0.1 localhost', *lines, '']))
        self.record.step('svc')
        self.svc.create()
        self.record.step('link')
        network.connect_machine(self.id, subnet, self.svc.keeper)
        for host in self.hosts.values():
            self.record.step(f'host {host.name}')
            host.create()
        self.record.step('guest')
        guest.build_initrd(self.initrd)
        for host in self.hosts.values():
            self.record.step(f'libvirtd {host.name}')
            host.wait_ready()
        self.record.write(state='up', keep=keep)
        if keep:
            for place in (self.svc, *self.hosts.values()):
                place.keep()

    def _places(self, subnet):
        self.subnet = subnet
        self.svc = Services(self.record, subnet)
        self.hosts = {name: Host(self.record, name, number, subnet, self.svc) for number, name in enumerate(self.names, 1)}
        self.configuration = Configuration(self)

    @classmethod
    def attach(cls, folder):
        """Join a kept lab that stands in `folder`, such as `tools/lab up` leaves. LabError if there is none."""
        record = Record(folder)
        if not record.standing():
            raise LabError(f'no lab is up in {record.folder}')
        lab = cls(folder, names=record.data['hosts'])
        lab._places(record.data['subnet'])
        return lab

    def keep(self):
        """Let a lab that belongs to this process outlive it, as if it had been built with `keep`. Its daemons run on."""
        for place in (self.svc, *self.hosts.values()):
            place.keep()
        self.record.write(keep=True)
        self.lock.release()

    def _give_up(self):
        """Take away what a failed `up` made."""
        self._let_go()
        self.record.erase()
        self.lock.release(remove=True)

    def down(self):
        """End everything in the lab and remove every file, link and process of it. Harmless when there is none.

        LabError if another process builds or owns it.
        """
        if not self.lock.held and not self.lock.acquire():
            raise LabError(f'another process builds or owns the lab in {self.folder}')
        for daemon in self.daemons.values():
            daemon.kill()
        self._let_go()
        self.record.erase()
        self.lock.release(remove=True)

    def _let_go(self):
        for place in (self.svc, *self.hosts.values()) if self.svc else ():
            place.let_go()
        self.daemons.clear()

    def reset(self):
        """Between two tests: no daemon, no guest, empty storage, healed network; hosts that were cut from power boot again.

        The configuration is the default one again, and the daemons' SQLite database is gone. Broker and databases that run stay; what is in
        them is their user's to clean.
        """
        for daemon in self.daemons.values():
            daemon.kill()
        self.daemons.clear()
        for host in self.hosts.values():
            host.reset()
        for folder in (self.shared, self.folder / 'state'):
            services.wipe(folder)
        services.stop_exports(self)
        self.configuration = Configuration(self)

    # --- what is in it ---

    def host(self, name):
        """The host of that name. LabError if there is none."""
        if name not in self.hosts:
            raise LabError(f'no host {name} in this lab, only {", ".join(self.hosts)}')
        return self.hosts[name]

    def status(self):
        """State of the lab as a dict for `tools/lab status`: state, hosts, services, daemons."""
        data = self.record.read()
        living = keepers(self.id)
        hosts = [self._host_status(name, name in living, data) for name in data.get('hosts', ())]
        locked = self.lock.held or self._owned_elsewhere()
        state = 'down' if not data and not living else data.get('state', 'broken')
        if state == 'building' and not locked or state == 'up' and not locked and not self.record.standing():
            state = 'broken'
        return {'state': state, 'folder': str(self.folder), 'id': self.id, 'subnet': data.get('subnet', ''), 'in_use': locked,
                'hosts': hosts, 'services': data.get('services', {}), 'daemons': recorded_daemons(self.folder),
                'steps': data.get('steps', [])}

    def _host_status(self, name, living, data):
        host = Host(self.record, name, data['hosts'].index(name) + 1, data['subnet'], None)
        status = {'name': name, 'libvirt_name': host.libvirt_name, 'ip': host.ip, 'up': living, 'libvirtd': 0, 'guests': 0, 'uri': host.uri}
        try:
            status['libvirtd'] = (living and host.libvirtd_pid) or 0
            status['guests'] = len(host.domains()) if status['libvirtd'] else 0
        except (LabError, FileNotFoundError):                        # it starts or ends just now
            status['up'] = host.is_up
        return status

    def _owned_elsewhere(self):
        if not self.lock.path.exists():
            return False
        probe = Lock(self.id)
        free = probe.acquire()
        probe.release()
        return not free

    def console_paths(self, instance_uuid):
        """Where the console of an instance may appear, from outside: on each host's own disks and on the shared ones."""
        folders = [host.instances_outside for host in self.hosts.values()]
        return [pathlib.Path(folder) / instance_uuid / 'console.log' for folder in (*folders, self.shared)]

    # --- services and daemons ---

    def start_service(self, kind):
        """Start `rabbitmq`, `mariadb` or `postgresql` in svc unless it runs; returns its URL. See tests/lab/services.py."""
        return services.start(self, kind)

    def start_daemon(self, name, argv, place=None, env=None):
        """Start a program under a name, in a host, in svc, or (place None) on the machine itself; its log is log/NAME.log."""
        if name in self.daemons and self.daemons[name].running():
            raise LabError(f'{name} runs already')
        self.daemons[name] = processes.Daemon(name, argv, self.folder / 'log' / f'{name}.log', self.folder / 'daemons', place, env)
        return self.daemons[name].start()

    def start_agent(self, host, argv=None, env=None, **options):
        """Start migrator-compute on host `host` (its name) with a configuration of its own; returns the Daemon.

        argv: another program to start instead, which is given --config-file too. options as Configuration.agent: `shared=True` puts
        instances on the shared storage, `compute={'heartbeat_interval': 0.2}` changes options.
        """
        path = self.configuration.agent(host, **options)
        return self._start_migrator(f'compute-{host}', argv or self.configuration.program('compute'), path, self.host(host), env)

    def start_conductor(self, name='conductor', argv=None, env=None, **options):
        """Bring the database up to date and start migrator-conductor in svc; returns the Daemon. options as Configuration.conductor."""
        path = self.configuration.conductor(name, **options)
        upgrade = [*self.configuration.program('manage'), '--config-file', path, 'db', 'upgrade']
        self.svc.run(upgrade, env=self.configuration.environment(env))
        return self._start_migrator(name, argv or self.configuration.program('conductor'), path, self.svc, env)

    def start_volume_agent(self, name, arrays, argv=None, env=None, **options):
        """Start migrator-volume-agent in svc; returns the Daemon. arrays and options as Configuration.volume_agent."""
        path = self.configuration.volume_agent(name, arrays, **options)
        return self._start_migrator(f'volume-{name}', argv or self.configuration.program('volume'), path, self.svc, env)

    def _start_migrator(self, name, argv, path, place, env):
        return self.start_daemon(name, [*argv, '--config-file', path], place, self.configuration.environment(env))

    def export_nbd(self, name, size_mib=64):
        """Make a volume of `size_mib` MiB and export it from svc to all hosts, for several clients at once; returns its nbd:// URI."""
        return services.export_nbd(self, name, size_mib)


def recorded_daemons(folder):
    """Every program on record in the lab of `folder`, services and exports too, each with whether it runs."""
    found = []
    for path in sorted(path for kind in ('daemons', 'services', 'volumes') for path in folder.glob(f'{kind}/*.json')):
        entry = json.loads(path.read_text())
        found.append({**entry, 'running': bool(entry['started']) and processes.start_time(entry['pid']) == entry['started']})
    return found
