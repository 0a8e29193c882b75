"""The arrays of one agent: each backend of [volume] enabled_backends with its driver, online or not.

An array that cannot be reached keeps neither the agent nor its other arrays waiting. It is offline, in words, until its driver has
started; that is tried again and again. One that was started and does not answer now is asked again by whoever needs it next.
"""
import threading
import time

from oslo_log import log
from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exception

from migrator import concurrency, config, exceptions
from migrator.rpc import volume_facts as facts
from migrator.rpc.beating import Question
from migrator.rpc.steps import run_driver
from migrator.volume.child import Child

LOG = log.getLogger(__name__)

DRIVERS = 'migrator.volume.drivers'

#: Seconds before an array is tried again that could not be reached at the start; doubled up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0


def load(conf, host):
    """Make the Backends that the configuration names. conf: migrator's options. host: migrator's name of the agent's host.

    Raises InvalidRequest in words for a name, a driver or a pool that cannot be.
    """
    names = conf.volume.enabled_backends
    if not names or len(set(names)) != len(names):
        raise exceptions.InvalidRequest('[volume] enabled_backends must name the backends, each once')
    return Backends([_load_one(conf, host, name) for name in names])


def _load_one(conf, host, name):
    if not facts.BACKEND.match(name):
        raise exceptions.InvalidRequest(f'[volume] enabled_backends: {name!r} is no name: letters, digits, dash and underscore')
    settings = config.backend(conf, name)
    try:
        loaded = stevedore_driver.DriverManager(DRIVERS, settings.driver, invoke_on_load=False).driver
    except stevedore_exception.NoMatches as error:
        raise exceptions.InvalidRequest(f'[{name}] driver = {settings.driver}: {error}') from None
    conf.register_opts(loaded.options, group=name)
    odd = [pool for pool in settings.pools if not facts.BACKEND.match(pool)]
    if odd or not settings.pools:
        raise exceptions.InvalidRequest(f'[{name}] pools: {f"{odd[0]!r} is no name" if odd else "there is none"}')
    made = loaded(settings, host, name)
    made.state_path = conf.state_path
    return Backend(name, made, settings.driver, tuple(settings.types), settings.array_id)


class Backend:
    """One array. name: of the backend; driver: its VolumeDriver; kind: the driver's name; types, array_id: as configured."""

    def __init__(self, name, driver, kind='', types=(), array_id=''):
        self.name = name
        self.kind = kind
        self.types = types
        self.array_id = array_id
        self._driver = driver
        self._started = False
        self._why = 'it has not been reached yet'
        self._pools = Question(f'the array {name}', lambda: run_driver(driver.pools))

    @property
    def offline(self):
        """Why it cannot be used, in words; '' when its driver has started."""
        return '' if self._started else self._why

    @property
    def capabilities(self):
        """What the array can do."""
        return tuple(self._driver.capabilities)

    def driver(self):
        """Give the driver. Raises DriverError in words while the backend is offline."""
        if not self._started:
            raise exceptions.DriverError(f'the backend {self.name} is offline: {self._why}')
        return self._driver

    def copier(self, command):
        """Begin what copies to or from this array, if that is not the copier itself; else None."""
        return self._driver.copier(command)

    def start(self):
        """Try to start the driver; returns whether it runs."""
        if not self._started:
            try:
                run_driver(self._driver.start)
                self._started = True
            except exceptions.MigratorError as error:
                self._why = str(error)
            except Exception as error:
                LOG.exception('the driver of backend %s cannot be started', self.name)
                self._why = f'{type(error).__name__}: {error}'
        return self._started

    def stop(self):
        """Let go of the array. Blocks, for a native thread."""
        self._driver.stop()

    def look(self):
        """Begin to ask for the pools, so that `describe` need not wait for all arrays one after another."""
        if self._started:
            self._pools.put()

    @property
    def asked(self):
        """When that was asked of the array whose answer came last, or is waited for, by the monotonic clock; None if nothing was."""
        return (self._pools.asked or None) if self._started else None

    def describe(self, patience):
        """Tell of it as a heartbeat does; waits up to `patience` seconds for the array."""
        pools = self._pools.answer(patience) if self._started else None
        offline = self.offline or (self._pools.trouble if pools is None else '')
        return facts.Backend(self.name, self.kind, offline, self.types, self.capabilities, self.array_id, pools or ())


class Backends:
    """All arrays of one agent. backends: of Backend. clock: monotonic."""

    def __init__(self, backends, clock=time.monotonic):
        self._clock = clock
        self._backends = {backend.name: backend for backend in backends}
        self._ending = threading.Event()

    def get(self, name):
        """Give the Backend of that name. Raises InvalidRequest if there is none."""
        found = self._backends.get(name)
        if found is None:
            raise exceptions.InvalidRequest(f'there is no backend {name!r:.80} here, only {", ".join(self._backends)}')
        return found

    def all(self):
        """Give all of them."""
        return tuple(self._backends.values())

    def start(self, patience=5.0):
        """Start all drivers at once, and wait up to `patience` seconds for them; what is not up by then is tried until it is."""
        until = self._clock() + patience
        for trying in [concurrency.spawn(self._start_one, backend) for backend in self.all()]:
            try:
                trying.wait(max(0.0, until - self._clock()))
            except TimeoutError:
                LOG.warning('an array takes longer than %g s to be reached; the agent begins without it', patience)

    def _start_one(self, backend):
        if not backend.start():
            LOG.error('the backend %s is offline, and is tried again: %s', backend.name, backend.offline)
            concurrency.spawn(self._keep_trying, backend)

    def _keep_trying(self, backend):
        pause = FIRST_PAUSE
        while not self._ending.wait(pause):
            before = backend.offline
            if backend.start():
                LOG.info('the backend %s is online', backend.name)
                return
            if backend.offline != before:
                LOG.error('the backend %s is offline: %s', backend.name, backend.offline)
            pause = min(LONGEST_PAUSE, pause * 2)

    def end(self):
        """Try no array any more."""
        self._ending.set()

    def stop(self):
        """Let go of all arrays. Blocks, for a native thread."""
        for backend in self.all():
            backend.stop()

    def describe(self, patience):
        """Tell of all of them; waits up to `patience` seconds for those that do not answer, together."""
        for backend in self.all():
            backend.look()
        until = self._clock() + patience
        return tuple(backend.describe(max(0.0, until - self._clock())) for backend in self.all())

    def looked(self):
        """Say when the oldest of the last answers was asked for: what was done before is seen in all of them. 0.0 if there is none."""
        return min((backend.asked for backend in self.all() if backend.asked), default=0.0)

    def copier(self, command):
        """Begin the copier: the program, or what a simulated array has instead."""
        for backend in self.all():
            begun = backend.copier(command)
            if begun is not None:
                return begun
        return Child(command)
