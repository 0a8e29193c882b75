"""Asking for migrations as an API tier does: a request without an answer is made again, by the same request id."""
import collections
import concurrent.futures
import contextlib
import threading
import time

from migrator import exceptions
from tests.soak import plan

#: How many requests may wait for an answer at once, and for how many seconds one is repeated.
CALLERS, PATIENCE = 12, 120.0


class Mover:
    """Makes the requests of a plan. Refusals are counted by the error's name; they are answers and no violation."""

    def __init__(self, api, hosts, guests, seed, options=None):
        """hosts: names. guests: uuids. options: of each migration."""
        self._api, self._hosts, self._guests, self._seed, self._options = api, list(hosts), list(guests), seed, options or {}
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

    @staticmethod
    def _answered(call, *arguments, **options):
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return call(*arguments, **options)
            except exceptions.Unavailable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
