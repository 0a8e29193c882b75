"""Doing what a plan says: each kind of fault on one target at a time, everything restarted afterwards, all of it noted.

A stage gives the daemons, broker and database; what only one kind of stage can do is among its own `actions`.
"""
import collections
import concurrent.futures
import contextlib
import threading
import time

#: How many faults may be in effect at once.
HANDS = 6
#: Seconds between two looks for daemons that died by themselves.
SUPERVISION = 0.3


class Busy(Exception):
    """The target is being disturbed already, or there is none of the kind now: the fault is left out."""


class Saboteur:
    """Injects faults and, as an operator's service manager would, starts again what died."""

    def __init__(self, stage, troubles):
        """stage: with daemons {name: Daemon}, agents, conductors (names), broker, database_server, actions. troubles: rules.Troubles."""
        self._stage, self._troubles = stage, troubles
        self.done, self.left_out, self.errors = collections.Counter(), collections.Counter(), []
        self._held, self._lock = set(), threading.Lock()
        self._pool = concurrent.futures.ThreadPoolExecutor(HANDS)
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._actions = {
            'kill agent': lambda f: self._kill(self._choose(stage.agents, f.target), f.seconds),
            'freeze agent': lambda f: self._freeze(self._choose(stage.agents, f.target), f.seconds),
            'kill conductor': lambda f: self._kill(self._choose(stage.conductors, f.target), f.seconds),
            'freeze conductor': lambda f: self._freeze(self._choose(stage.conductors, f.target), f.seconds),
            'restart broker': lambda f: self._server('broker', stage.broker.stopped, f.seconds),
            'freeze broker': lambda f: self._server('broker', stage.broker.frozen, f.seconds),
            'restart database': lambda f: self._server('database', stage.database_server.stopped, f.seconds),
            'freeze database': lambda f: self._server('database', stage.database_server.frozen, f.seconds)}

    def start(self):
        """Begin to look after the daemons."""
        self._supervisor.start()

    def inject(self, fault):
        """Have a fault done in the background."""
        self._pool.submit(self._inject, fault)

    def finish(self):
        """Wait until every fault is over and everything runs."""
        self._pool.shutdown(wait=True)
        self._over.set()
        self._supervisor.join()
        for name in self._stage.daemons:
            self._take(name)
            self._revive(name)

    def _inject(self, fault):
        try:
            (self._actions.get(fault.kind) or self._stage.actions[fault.kind])(fault)
            self.done[fault.kind] += 1
        except Busy:
            self.left_out[fault.kind] += 1
        except Exception as error:
            self.errors.append(f'the soak could not do its fault {fault}: {type(error).__name__}: {error}')

    @contextlib.contextmanager
    def holding(self, key):
        """Disturb `key` for the time of the with-block, alone."""
        self._take(key)
        try:
            yield
        finally:
            self._release(key)

    def _take(self, key):
        with self._lock:
            if key in self._held:
                raise Busy(key)
            before = self._headless()
            self._held.add(key)
            if key not in self._stage.conductors:
                self._troubles.begin(key)
            elif self._headless() and not before:
                self._troubles.begin('conductors')

    def _release(self, key):
        with self._lock:
            before = self._headless()
            self._held.discard(key)
            if key not in self._stage.conductors:
                self._troubles.end(key, time.monotonic())
            elif before:
                self._troubles.end('conductors', time.monotonic())

    def _headless(self):
        """A conductor alone is no excuse for a standstill: another one goes on. All of them at once are."""
        return self._held >= set(self._stage.conductors)

    def _choose(self, names, target):
        for offset in range(len(names)):
            name = names[(target + offset) % len(names)]
            if name not in self._held:
                return name
        raise Busy('all')

    def _kill(self, name, seconds):
        with self.holding(name):
            self._stage.daemons[name].kill()
            self._over.wait(seconds)
            self._stage.restart(name)

    def _freeze(self, name, seconds):
        with self.holding(name):
            daemon = self._stage.daemons[name]
            if not daemon.running():
                raise Busy(name)
            daemon.pause()
            try:
                self._over.wait(seconds)
            finally:
                daemon.resume()

    def _server(self, key, how, seconds):
        with self.holding(key):
            with how():
                self._over.wait(seconds)
            self._stage.await_servers()

    def _supervise(self):
        """Start again what died; each at once and for itself, for one that waits to be started is in trouble as well."""
        with concurrent.futures.ThreadPoolExecutor(HANDS) as hands:
            while not self._over.wait(SUPERVISION):
                for name in list(self._stage.daemons):
                    if not self._stage.daemons[name].running():
                        with contextlib.suppress(Busy):
                            self._take(name)
                            hands.submit(self._revive, name)

    def _revive(self, name):
        """Start a daemon that was taken, if it does not run, and let go of it."""
        try:
            if not self._stage.daemons[name].running():
                self._stage.restart(name)
        except Exception as error:
            self.errors.append(f'{name} did not start again: {type(error).__name__}: {error}')
        finally:
            self._release(name)
