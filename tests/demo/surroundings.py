"""What the demonstration needs around it: the lab, the broker, the schema, a conductor and an agent in each of two hosts."""
import contextlib
import logging
import pathlib
import shutil

from migrator.rpc import conductor
from tests.demo.story import Failed, wait_until
from tests.lab import Lab, LabError, services
from tests.lab.lab import recorded_daemons
from tests.lab.processes import HostProcess

#: A daemon that has not begun to serve within so many seconds has failed.
READY_SECONDS = 60
#: Options of the agents: progress more often than one would want it for thousands of guests.
PACE = {'heartbeat_interval': 0.25, 'progress_interval': 0.25}


class Leashed:
    """A host in which programs end with this process, even if it is killed. For a lab that outlives this process."""

    def __init__(self, place):
        self._place, self.name = place, place.name

    def popen(self, argv, **options):
        """Start `argv` in the host. The kernel ends what stands before the namespace together with us, and the program with that."""
        leash = ['setpriv', '--pdeathsig', 'KILL', '--']
        return HostProcess([*leash, *self._place.command([*leash, *argv])], **options)


class Surroundings:
    """Builds all of it, or joins what stands, as a context manager; `lab`, `api`, `hosts` (names) and `reused` are valid within.

    On the way out everything that was started is ended, unless `keep` was called. After an error the logs are kept and named.
    """

    def __init__(self, folder, keep, show):
        """folder: of the lab. keep: daemons may outlive this process. show: tells what is done."""
        self._folder, self._may_keep, self._show = pathlib.Path(folder), keep, show
        self._kept = False
        self._started = []
        self.reused, self.lab, self.api, self.hosts = False, None, None, ()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._make_lab(stack)
            stack.push(self._save_logs)
            self._make_broker(stack)
            with self._show.working('database, a conductor, and an agent in each host'):
                self._make_daemons(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def keep(self):
        """Leave everything up, with a configuration for the command line."""
        self.lab.configuration.client()
        if not self.reused:
            self.lab.keep()
        self._kept = True

    def _unless_kept(self, function, *args):
        if not self._kept:
            function(*args)

    def _make_lab(self, stack):
        self.lab = Lab(self._folder)
        self.reused = self.lab.record.standing()
        if self.reused:
            self.lab = Lab.attach(self._folder)
            self._show.line(f'using the lab in {self._folder}, which is up')
        else:
            stack.callback(self._unless_kept, self.lab.down)
            with self._show.working('lab: two hosts in namespaces of their own, each with a libvirtd'):
                self.lab.up()
        self.hosts = tuple(self.lab.hosts)[:2]
        if len(self.hosts) < 2:
            raise Failed(f'the lab in {self._folder} has one host only; take it down with: tools/lab down')

    def _make_broker(self, stack):
        ran = services.running(self.lab, 'rabbitmq')
        with self._show.working('RabbitMQ'):
            url = self.lab.start_service('rabbitmq')
        if not ran:
            stack.callback(self._unless_kept, services.stop, self.lab, 'rabbitmq')
        self.lab.configuration.database = self.lab.record.read().get('database', '')
        self._log_to_file(stack)
        self.api = conductor.ConductorAPI.from_url(url, user='demo')
        stack.callback(self.api.close)

    def _log_to_file(self, stack):
        """This process is a client of the conductor; what its libraries have to say must not disturb the bars."""
        handler = logging.FileHandler(self.lab.folder / 'log' / 'demo.log')
        handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(name)s %(message)s'))
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)

    def _make_daemons(self, stack):
        stack.callback(self._unless_kept, self._end_daemons)
        lab, running = self.lab, {entry['name'] for entry in recorded_daemons(self.lab.folder) if entry['running']}
        if 'conductor' not in running:
            path = lab.configuration.conductor()
            lab.svc.run([*lab.configuration.program('manage'), '--config-file', path, 'db', 'upgrade'])
            self._start('conductor', 'conductor', path, lab.svc)
        for host in self.hosts:
            if f'compute-{host}' not in running:
                self._start(f'compute-{host}', 'compute', lab.configuration.agent(host, compute=PACE), lab.host(host))
        for name in self._started:
            lab.daemons[name].wait_for('is ready', timeout=READY_SECONDS)
        wait_until(lambda: {h['name'] for h in self.api.hosts() if h['state'] == 'up'} >= set(self.hosts), 30, 'heartbeats of the hosts')

    def _start(self, name, program, configuration, place):
        self._started.append(name)
        place = Leashed(place) if self.reused and not self._may_keep else place
        self.lab.start_daemon(name, [*self.lab.configuration.program(program), '--config-file', configuration], place)

    def _end_daemons(self):
        """End what was started, agents first, so that the conductor hears their last words."""
        for name in reversed(self._started):
            daemon = self.lab.daemons.get(name)
            if daemon is not None and not self.reused:
                daemon.kill()            # the lab goes away, and nothing in it is worth an orderly end
            elif daemon is not None:
                try:
                    daemon.terminate()
                except LabError as error:
                    self._show.error(str(error))

    def _save_logs(self, kind, *_):
        """After an error, keep the logs of a lab that goes away."""
        if kind is None or not issubclass(kind, Exception):
            return
        found = [path for path in [*self.lab.folder.glob('log/*'), *self.lab.folder.glob('hosts/*/log/*')] if path.is_file()]
        target = self.lab.folder if self.reused else self.lab.folder.with_name(f'{self.lab.folder.name}-logs')
        if not self.reused:
            if target.exists():
                shutil.rmtree(target)
            for path in found:
                copy = target / path.relative_to(self.lab.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        self._show.error(f'The logs are in {target}:')
        for path in sorted(found):
            self._show.line(str(target / path.relative_to(self.lab.folder)))
