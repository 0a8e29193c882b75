"""The places of a lab: a host with its libvirtd, and `svc`, the host without one where broker and databases run."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import uuid

from tests.lab import network, processes
from tests.lab.errors import LabError
from tests.lab.record import MARK, keepers

KEEPER = pathlib.Path(__file__).with_name('keeper.py')
SYSTEM = {'etc': '/etc/libvirt', 'lib': '/var/lib/libvirt', 'log': '/var/log/libvirt', 'cache': '/var/cache/libvirt'}


class Place:
    """A set of namespaces with a name and an address, in which programs are run."""

    bridge = None

    def __init__(self, record, name, ip_address):
        """Describe the place `name` of the lab of `record`; nothing is made."""
        self.record, self.name, self.ip = record, name, ip_address
        self.libvirt_name = f'{name}.lab'                            # not migrator's name for it, so that the mapping is tested
        self.folder = record.folder / 'hosts' / name
        self._leash = None
        self._keeper = None

    @property
    def keeper(self):
        """Process id of the keeper. LabError if the place is down."""
        if self._keeper is None or not processes.alive(self._keeper):
            found = keepers(self.record.id).get(self.name)
            if not found:
                raise LabError(f'{self.name} is down')
            self._keeper = found[0]
        return self._keeper

    @property
    def is_up(self):
        """Whether the place has its keeper."""
        return bool(keepers(self.record.id).get(self.name))

    def _binds(self):
        """Pairs of what is bound where in the mount namespace."""
        return [(str(self.record.folder / 'etc' / 'hosts'), '/etc/hosts')]

    def create(self):
        """Make the namespaces, tied to the life of this process until `keep`. LabError if that does not work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / 'log').mkdir(exist_ok=True)
        (self.folder / 'boot_id').write_text(f'{uuid.uuid4()}\n')
        binds = [*self._binds(), (str(self.folder / 'boot_id'), '/proc/sys/kernel/random/boot_id')]
        specification = self.folder / 'keeper.json'
        specification.write_text(json.dumps({'hostname': self.libvirt_name, 'binds': binds, 'bridge': self.bridge}))
        read, write = os.pipe()
        try:
            done = subprocess.run([sys.executable, '-I', '-S', KEEPER, MARK, self.record.id, self.name, specification],
                                  stdin=read, capture_output=True, text=True, timeout=30)
        except subprocess.TimeoutExpired:
            os.close(write)
            raise LabError(f'{self.name}: the keeper did not start within 30 s') from None
        finally:
            os.close(read)
        if done.returncode:
            os.close(write)
            raise LabError(f'{self.name}: {done.stderr.strip()[-1000:]}')
        self._leash, self._keeper = write, int(done.stdout)

    def keep(self):
        """Let the place live on when this process ends."""
        if self._leash is not None:
            os.write(self._leash, b'k')
            self.let_go()

    def let_go(self):
        """Close this process's end of the leash; without `keep` before, the place ends."""
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None

    def command(self, argv, cwd='/'):
        """What to run out here so that `argv` runs in there, in the directory `cwd` of there."""
        return ['nsenter', '--target', str(self.keeper), '--net', '--mount', '--uts', '--pid', '--',
                'env', '-C', str(cwd), *(str(word) for word in argv)]

    def popen(self, argv, cwd='/', **options):
        """Start `argv` in here; `options` as for subprocess.Popen. Returns a HostProcess: its signals reach the program."""
        return processes.HostProcess(self.command(argv, cwd), **options)

    def run(self, argv, cwd='/', check=True, timeout=60, **options):
        """Run `argv` in here to its end; returns the CompletedProcess with text output. LabError with its words if it fails."""
        done = subprocess.run(self.command(argv, cwd), timeout=timeout, **{'capture_output': True, 'text': True, **options})
        if check and done.returncode:
            raise LabError(f'{self.name}: {argv[0]} ended with {done.returncode}: {(done.stderr or done.stdout or "").strip()[-2000:]}')
        return done

    def processes(self):
        """Every process in here but the keeper, by the numbers out here."""
        keeper = self.keeper
        return [pid for pid in processes.inside(os.readlink(f'/proc/{keeper}/ns/pid')) if pid != keeper]

    def outer(self, pid):
        """The number out here of a process whose number in here is `pid`; None if there is none."""
        return next((found for found in self.processes() if processes.number_inside(found) == int(pid)), None)

    def crash(self):
        """Cut the power: every process in here ends at once, and the place is down until `create`."""
        for pid in keepers(self.record.id).get(self.name, []):
            processes.send(pid, signal.SIGKILL)
        self.let_go()
        processes.wait_until(lambda: not self.is_up, 20, f'end of {self.name}')
        self._keeper = None


class Services(Place):
    """`svc`: holds the bridge, the broker and the databases."""

    def __init__(self, record, subnet):
        """Describe the services' place on `subnet`."""
        super().__init__(record, 'svc', network.address(subnet, network.SERVICES))
        self.bridge = {'name': network.BRIDGE, 'mac': network.mac(self.ip), 'address': f'{self.ip}/24'}

    @property
    def link(self):
        """Name of the machine's own link to the lab."""
        return network.outside_link(self.record.id)


class Host(Place):
    """A hypervisor host: its own libvirtd, its own instances directory, an address on the lab's bridge."""

    def __init__(self, record, name, number, subnet, services):
        """Describe host `name`, the `number`th (from 1) on `subnet`; `services` is the place with the bridge."""
        super().__init__(record, name, network.address(subnet, number))
        self.services = services
        self.instances = record.folder / 'instances'                 # as seen in here; `instances_outside` is the same from outside
        self.instances_outside = self.folder / 'instances'
        self.state = self.folder / 'state'
        self.runtime = record.runtime / name                         # sockets, where paths are short
        self.log = self.folder / 'log' / 'libvirtd.log'

    @property
    def socket(self):
        """Path of libvirtd's socket, from outside."""
        return self.runtime / 'libvirt-sock'

    @property
    def uri(self):
        """libvirt's URI for programs outside the host."""
        return f'qemu+unix:///system?socket={self.socket}'

    @property
    def peer_uri(self):
        """libvirt's URI for other hosts of the lab."""
        return f'qemu+tcp://{self.ip}/system'

    def _binds(self):
        binds = [(str(self.folder / name), target) for name, target in SYSTEM.items()]
        return [*super()._binds(), *binds, (str(self.runtime), '/run/libvirt'), (str(self.instances_outside), str(self.instances))]

    def create(self):
        """Make the host, join it to the network and start libvirtd (which `wait_ready` waits for)."""
        for path in (*(self.folder / name for name in SYSTEM), self.instances_outside, self.state, self.runtime, self.instances):
            path.mkdir(parents=True, exist_ok=True)
        link = self.folder / 'run'
        if not link.is_symlink():
            link.symlink_to(self.runtime)
        self._configure()
        super().create()
        network.connect_host(self.name, self.ip, self.keeper, self.services.keeper)
        self.start_libvirtd()

    def _configure(self):
        """Write libvirt's configuration: its own identity (it refuses to migrate to the same host_uuid), no cgroups, no confinement."""
        etc = self.folder / 'etc'
        (etc / 'qemu' / 'networks').mkdir(parents=True, exist_ok=True)
        identity = uuid.uuid5(uuid.NAMESPACE_DNS, f'{self.name}.{self.record.id}.lab')
        (etc / 'libvirtd.conf').write_text(
            f'host_uuid = "{identity}"\nlisten_tls = 0\nlisten_tcp = 1\nlisten_addr = "{self.ip}"\nauth_tcp = "none"\n'
            'auth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_outputs = "2:file:/var/log/libvirt/libvirtd.log"\n')
        (etc / 'qemu.conf').write_text(
            'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = []\nnamespaces = []\n'
            f'migration_host = "{self.ip}"\nremember_owner = 0\nstdio_handler = "file"\n')

    # --- libvirtd ---

    def start_libvirtd(self):
        """Start libvirtd; it runs on its own from then. Use `wait_ready` before the first connection."""
        self.run(['libvirtd', '--daemon', '--listen', '--config', '/etc/libvirt/libvirtd.conf', '--pid-file', '/run/libvirt/libvirtd.pid'])

    @property
    def libvirtd_pid(self):
        """Process id of libvirtd, as seen from out here; None when it does not run.

        A child that it has just forked, to become an emulator or a helper, bears its name for a moment, and may have the lower number;
        but it is younger.
        """
        found = [pid for pid in self.processes() if os.path.basename((processes.arguments(pid) or [''])[0]) == 'libvirtd']
        born = {pid: processes.start_time(pid) for pid in found}
        return min((pid for pid in found if born[pid]), key=lambda pid: int(born[pid]), default=None)

    def wait_ready(self, timeout=30):
        """Wait until libvirtd answers on its socket; LabError with the end of its log if it does not."""
        def answers():
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(2)
                    probe.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return self.libvirtd_pid is not None
        try:
            processes.wait_until(answers, timeout, f'libvirtd of {self.name}')
        except LabError as error:
            log = self.log.read_text(errors='replace')[-1500:] if self.log.exists() else 'no log'
            raise LabError(f'{error}: {log}') from None
        self.virsh('version')

    def kill_libvirtd(self):
        """End libvirtd at once (SIGKILL); guests run on. Nothing happens when it does not run."""
        pid = self.libvirtd_pid
        if pid:
            processes.send(pid, signal.SIGKILL)
            processes.wait_until(lambda: not processes.alive(pid), 10, f'end of libvirtd of {self.name}')
            # What it had just forked bears its name until it becomes another program, and holds its files open.
            processes.wait_until(lambda: self.libvirtd_pid is None, 10, f'end of what libvirtd of {self.name} had begun')

    def stop_libvirtd(self, timeout=60):
        """Ask libvirtd to end (SIGTERM), as a package upgrade does, and wait until it has; guests run on. Harmless when it does not run."""
        pid = self.libvirtd_pid
        if pid:
            processes.send(pid, signal.SIGTERM)
            processes.wait_until(lambda: not processes.alive(pid), timeout, f'graceful end of libvirtd of {self.name}')

    def virsh(self, *words, check=True, timeout=30):
        """Run virsh on this host's libvirtd, from outside; returns its output. LabError with its words if it fails."""
        done = subprocess.run(['virsh', '--connect', self.uri, '--quiet', *words], capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise LabError(f'{self.name}: virsh {words[0]}: {done.stderr.strip()}')
        return done.stdout

    def domains(self):
        """UUIDs of every guest that libvirtd knows, running or not."""
        return self.virsh('list', '--all', '--uuid').split()

    # --- trouble ---

    def cut(self):
        """Take the host off the network: its port on the bridge goes down. Guests and agents run on."""
        network.ip('link', 'set', self.name, 'down', inside=self.services.keeper)

    def heal(self):
        """Put the host back on the network, and let it talk to svc and the other hosts again. Harmless when it was not cut."""
        network.ip('link', 'set', self.name, 'up', inside=self.services.keeper)
        for line in network.ip('neighbour', 'show', 'nud', 'permanent', inside=self.keeper).splitlines():
            network.ip('neighbour', 'delete', line.split()[0], 'dev', 'eth0', inside=self.keeper)

    def cut_from_services(self):
        """Let what the host sends to svc (broker, databases) vanish, while the other hosts still reach it; `heal` ends it."""
        self.cut_from(self.services)

    def cut_from(self, place):
        """Let what the host sends to another place vanish, without a word to either; `heal` ends it."""
        network.ip('neighbour', 'replace', place.ip, 'lladdr', '02:00:00:00:00:01', 'nud', 'permanent', 'dev', 'eth0', inside=self.keeper)

    def boot(self):
        """Bring the host up again after `crash`: same identity, same files, new boot id, no guest running."""
        if self.is_up:
            raise LabError(f'{self.name} is up')
        for stale in self.runtime.iterdir():                         # what a reboot clears: /run
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        self.create()
        self.wait_ready()

    # --- between tests ---

    def reset(self):
        """Make the host as new: network healed, agents and guests gone, libvirtd running, no file in its instances directory."""
        if not self.is_up:
            self._wipe()
            self.boot()
            return
        self.heal()
        self._drop_husks()
        libvirtd = self.libvirtd_pid
        running = [pid for pid in self.processes() if pid != libvirtd]
        for pid in running:
            processes.send(pid, signal.SIGKILL)
        processes.wait_until(lambda: not any(processes.alive(pid) for pid in running), 20, f'end of the processes of {self.name}')
        if libvirtd is None:
            self.start_libvirtd()
        self.wait_ready()
        for domain in self.domains():
            self._forget(domain)
        self._wipe()
        if self.domains():
            raise LabError(f'{self.name} still has guests after the reset')

    def _drop_husks(self):
        """Remove what libvirtd keeps of guests whose emulator it was starting when it was killed: it itself never can."""
        notes = [path for path in (self.runtime / 'qemu').glob('*.xml*') if "pid='0'" in path.read_text(errors='replace')]
        if notes:
            self.kill_libvirtd()
            for path in notes:
                path.unlink(missing_ok=True)

    def _forget(self, domain):
        """Remove a guest from libvirtd: it may go by itself meanwhile, when its process was killed or it was never defined."""
        self.virsh('destroy', domain, check=False)
        self.virsh('undefine', domain, '--managed-save', '--snapshots-metadata', check=False)
        processes.wait_until(lambda: domain not in self.domains(), 15, f'end of guest {domain} on {self.name}')

    def _wipe(self):
        for folder in (self.instances_outside, self.state):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
