"""Asking for migrations as an API tier does: a request without an answer is made again, by the same request id."""
import collections
import concurrent.futures
import contextlib
import threading
import time

from migrator import exceptions
from tests.soak import plan, rules

#: How many requests may wait for an answer at once, and for how many calm seconds (rules.Troubles) one is repeated.
CALLERS, PATIENCE = 12, 120.0


class Mover:
    """Makes the requests of a plan. Refusals are counted by the error's name; they are answers and no violation.

    A violation is an InternalError, which is a defect by what it says, and no answer for all the patience, in which only those
    seconds count in which broker, database and a conductor were well.
    """

    def __init__(self, api, hosts, guests, seed, troubles, options=None, patience=PATIENCE):
        """hosts: names. guests: uuids. troubles: rules.Troubles. options: of each migration. patience: calm seconds."""
        self._api, self._hosts, self._guests, self._seed, self._options = api, list(hosts), list(guests), seed, options or {}
        self._troubles, self._patience = troubles, patience
        self.accepted, self.refused, self.counts = {}, collections.Counter(), collections.Counter()
        self.violations = []
        self._pool = concurrent.futures.ThreadPoolExecutor(CALLERS)
        self._over = threading.Event()

    def ask(self, move):
        """Have a request made in the background."""
        self._pool.submit(self._ask, move)

    def finish(self):
        """Wait until every request is answered."""
        self._over.set()
        self._pool.shutdown(wait=True)

    def _ask(self, move):
        try:
            guest = self._guests[move.guest % len(self._guests)]
            here = self._answered(self._api.instance_show, guest)['host']
            there = plan.destination(self._hosts, here, move.shift)
            found = self._request(move, guest, there)
            if move.abort_after is not None:
                self._over.wait(move.abort_after)
                self.counts['aborts'] += 1
                with contextlib.suppress(exceptions.Conflict):      # too late is an answer
                    self._answered(self._api.abort, found)
        except exceptions.MigratorError as error:
            self.refused[error.kind] += 1
            if isinstance(error, exceptions.InternalError):
                self.violations.append(f'request {move.number} was answered by a defect: {error}')
            if isinstance(error, exceptions.Unavailable):
                self.violations.append(f'request {move.number} had no answer for {self._patience:g} s in which broker, database and a '
                                       f'conductor were well: {error}')
        except Exception as error:
            self.violations.append(f'request {move} failed: {type(error).__name__}: {error}')

    def _request(self, move, guest, there):
        def once():
            return self._answered(self._api.live_migrate, guest, there, request_id=f'soak-{self._seed}-{move.number}',
                                  options=self._options)['id']
        if not move.doubled:
            found = once()
        else:
            self.counts['doubled requests'] += 1
            with concurrent.futures.ThreadPoolExecutor(2) as both:
                answers = [future.result() for future in [both.submit(once), both.submit(once)]]
            found = answers[0]
            if len(set(answers)) != 1:
                self.violations.append(f'request {move.number}, made twice, gave the migrations {answers}')
        self.accepted[move.number] = found
        return found

    def _answered(self, call, *arguments, **options):
        """Ask until there is an answer. Raises it if it is an error, and Unavailable if there is none for all the patience."""
        calm, asked = 0.0, time.monotonic()
        while True:
            try:
                return call(*arguments, **options)
            except exceptions.Unavailable:
                now = time.monotonic()
                calm, asked = calm + self._troubles.calm(rules.SERVERS, asked, now), now
                if calm > self._patience:
                    raise
                time.sleep(0.5)
