"""Lets guests go on that stand still because a volume did not answer, as soon as its array does.

An array that restarts, or a cut network, fails a guest's requests to its volumes; the guest is paused with them and nothing is lost. Nobody
but the guest's own host can tell when it may go on, so its agent looks for itself, whatever the conductors do. It leaves alone guests that
something else is being done with: a migration or an operation has its turn.
"""
import dataclasses
import threading
import time

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc.steps import run_driver

LOG = log.getLogger(__name__)

#: How many guests are helped at once.
AT_ONCE = 8
#: Longest time between two tries for one guest, in seconds; a guest that has run for as long has its stall behind it.
LONGEST_PAUSE = 60.0
#: Longest note about a guest, in characters.
LONGEST_NOTE = 300


@dataclasses.dataclass
class Stall:
    """One guest that stands still, or did lately. Times by the monotonic clock.

    since: when it was seen first. pause: seconds between tries. due: when to try again. ended: when it went on, None while it has not.
    """

    since: float
    pause: float
    due: float
    told: str = ''
    ended: float | None = None


class StallWatch:
    """Looks every `interval` seconds.

    driver: ComputeDriver. turns: of the guests, rpc.steps.Turns. clock: monotonic; wall: seconds since the epoch, for the notes.
    """

    def __init__(self, driver, turns, interval, clock=time.monotonic, wall=time.time):
        self._driver = driver
        self._turns = turns
        self._interval = interval
        self._clock = clock
        self._wall = wall
        self._stalls = {}                # uuid -> Stall
        self._notes = {}                 # uuid -> words
        self._lock = threading.Lock()
        self._pool = concurrency.Pool(AT_ONCE)
        self._helped = set()             # uuids whose try is under way
        self._stopping = threading.Event()

    def start(self):
        """Look until `stop`, in a thread of its own."""
        concurrency.spawn(self._look_for_ever)

    def stop(self):
        """End after the present look."""
        self._stopping.set()

    def notes(self):
        """Give {uuid: words} of what has stalled since the agent's start."""
        with self._lock:
            return dict(self._notes)

    def _look_for_ever(self):
        failing = False
        while not self._stopping.wait(self._interval):
            try:
                with rpc_context.using(rpc_context.MigratorContext(overwrite=False)):
                    self.look()
                failing = False
            except exceptions.MigratorError as error:
                if not failing:          # the heartbeat says so too, as often as it likes
                    LOG.warning('it cannot be seen whether guests wait for volumes: %s', error)
                failing = True
            except Exception:
                LOG.exception('looking for guests that wait for volumes failed by a defect')

    def look(self):
        """Look once, and begin to help those whose time it is. Raises what the driver raises."""
        asked = self._clock()
        found = set(run_driver(self._driver.stalled))
        now = self._clock()
        with self._lock:
            for uuid in found:
                self._seen(uuid, asked, now)
            for uuid, stall in list(self._stalls.items()):
                if uuid not in found and uuid not in self._helped:
                    self._over(uuid, stall, now)
            due = [uuid for uuid in found if uuid not in self._helped and self._stalls[uuid].due <= now]
        for uuid in due:
            with self._lock:
                self._helped.add(uuid)
            if not self._pool.try_spawn(rpc_context.bind(self._help), uuid):
                with self._lock:
                    self._helped.discard(uuid)

    def _seen(self, uuid, asked, now):
        known = self._stalls.get(uuid)
        if known is None:
            self._stalls[uuid] = Stall(now, self._interval, now)
        elif known.ended is not None and known.ended < asked:    # again, and soon: what answers does not serve it
            pause = min(known.pause * 2, LONGEST_PAUSE)
            self._stalls[uuid] = Stall(now, pause, now + pause)
        else:
            return
        self._tell(uuid, self._stalls[uuid], 'an I/O error of a volume')

    def _over(self, uuid, stall, now):
        if stall.ended is None:
            stall.ended = now
            self._notes[uuid] = f'stood still from {self._time(now - stall.since)} to {self._time()}: {stall.told}'[:LONGEST_NOTE]
            LOG.info('instance %s %s', uuid, self._notes[uuid])
        elif now - stall.ended >= LONGEST_PAUSE:
            del self._stalls[uuid]

    def _tell(self, uuid, stall, why):
        if stall.told != why:
            stall.told = why
            self._notes[uuid] = f'stands still since {self._time(self._clock() - stall.since)}: {why}'[:LONGEST_NOTE]
            LOG.warning('instance %s %s', uuid, self._notes[uuid])

    def _time(self, ago=0.0):
        return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(self._wall() - ago))

    def _help(self, uuid):
        why = 'letting it go on failed by a defect'
        try:
            with self._turns.if_free(uuid) as free:
                why = run_driver(self._driver.resume_stalled, uuid) if free else 'something else is being done with the guest'
        except exceptions.MigratorError as error:
            why = str(error)
        except Exception:
            LOG.exception('letting instance %s go on failed by a defect', uuid)
        finally:
            with self._lock:
                self._helped.discard(uuid)
                now, stall = self._clock(), self._stalls[uuid]
                if why:
                    stall.due = now + stall.pause
                    self._tell(uuid, stall, why)
                else:
                    self._over(uuid, stall, now)
