"""Faults that tests and operators order for simulated hosts: refusals, hangs, slowness, and the death of the agent.

Actions, each for a host (or '*') and a method of the driver (or '*'):
    fail             raise DriverError; nothing happens
    fail-after       take effect, then raise DriverError: the call's error does not say where the guest is
    hang             wait until it is released (or the driver is stopped), then go on
    slow:SECONDS     wait, then go on
    die-before       SIGKILL this process before the method takes effect
    die-during       for live_migration: SIGKILL this process while its job runs
    die-after        SIGKILL this process after it took effect, before anyone hears of it
"""
import os
import signal

from migrator import concurrency, exceptions

ACTIONS = ('fail', 'fail-after', 'hang', 'die-before', 'die-during', 'die-after')


def check_action(action):
    """Raise InvalidRequest for an action that does not exist."""
    if action in ACTIONS:
        return
    try:
        if action.startswith('slow:') and float(action.removeprefix('slow:')) >= 0:
            return
    except ValueError:
        raise exceptions.InvalidRequest(f'{action!r}: the seconds are no number') from None
    raise exceptions.InvalidRequest(f'{action!r} is no fault; there are {", ".join(ACTIONS)} and slow:SECONDS')


class Faults:
    """The faults that apply to one host, taken from the world and from [fake] faults."""

    def __init__(self, store, host, configured=()):
        """configured: METHOD=ACTION texts that apply to every call. Raises InvalidRequest for a malformed one."""
        self._store, self._host = store, host
        self._configured = []
        self._stopped = concurrency.native_event()
        for text in configured:
            method, _, action = text.partition('=')
            check_action(action)
            self._configured.append((method.strip(), action.strip()))

    def stop(self):
        """Let go of every call that hangs here."""
        self._stopped.set()

    def start(self):
        """Faults work again after a stop."""
        self._stopped.clear()

    def before(self, method):
        """Do what is ordered before `method` takes effect; returns the actions that are left for later."""
        later = []
        for fault, action in self._take(method):
            if action == 'fail':
                raise exceptions.DriverError(f'{method} failed at {self._host}, as was ordered')
            if action == 'hang':
                self._hang(fault)
            elif action.startswith('slow:'):
                self._stopped.wait(float(action.removeprefix('slow:')))
            elif action == 'die-before':
                die()
            else:
                later.append(action)
        return later

    def after(self, method, actions):
        """Do what is ordered after `method` took effect."""
        if 'die-after' in actions:
            die()
        if 'fail-after' in actions:
            raise exceptions.DriverError(f'{method} failed at {self._host} after it took effect, as was ordered')

    def _take(self, method):
        """The faults of one call, each used up once: pairs of the fault's row (None: configured) and its action."""
        query = "SELECT id, action, times FROM fault WHERE host IN (?, '*') AND method IN (?, '*') AND times != 0 ORDER BY id"
        with self._store.read() as db:
            taken = db.execute(query, (self._host, method)).fetchall()
        if taken:
            with self._store.write() as db:
                taken = db.execute(query, (self._host, method)).fetchall()
                db.executemany('UPDATE fault SET times = times - 1 WHERE id = ? AND times > 0', [(f['id'],) for f in taken])
        return [(f['id'], f['action']) for f in taken] + [(None, a) for m, a in self._configured if m in (method, '*')]

    def _hang(self, fault):
        while not self._stopped.wait(0.1):
            if fault is not None:
                with self._store.read() as db:
                    if db.execute('SELECT 1 FROM fault WHERE id = ?', (fault,)).fetchone() is None:
                        return


def die():
    """Kill this process as the machine's out-of-memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)
