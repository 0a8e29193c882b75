"""What the heartbeats of all agents have in common: a thread that beats, and questions that must not hold it up."""
import threading
import time

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.rpc import errors

LOG = log.getLogger(__name__)

#: Seconds that a heartbeat waits for the hypervisor or the arrays, if the interval is not longer.
LEAST_PATIENCE = 1.0


class Beating:
    """Base of the agents' heartbeats: `beat` is called every `interval` seconds until `stop`. clock: monotonic."""

    def __init__(self, interval, clock=time.monotonic):
        self._interval = interval
        self._clock = clock
        self._beating = threading.Lock()
        self._stopping = threading.Event()

    def start(self):
        """Beat until `stop`, in a thread of its own."""
        concurrency.spawn(self._beat_for_ever)

    def stop(self):
        """End after the present heartbeat."""
        self._stopping.set()

    def beat(self):
        """Send one heartbeat; returns True if it is known to have arrived. Raises nothing that the next one may cure."""
        raise NotImplementedError

    def _beat_for_ever(self):
        while not self._stopping.is_set():
            started = self._clock()
            try:
                self.beat()
            except Exception:
                LOG.exception('a heartbeat failed by a defect')
            self._stopping.wait(max(0.0, self._interval - (self._clock() - started)))

    @staticmethod
    def _said(number, tell, *args):
        """Give what `tell` returns, {} for nothing; None if the heartbeat of that number was not answered, or refused."""
        try:
            return tell(*args) or {}
        except (errors.NoAnswer, errors.NotDelivered) as error:
            LOG.warning('heartbeat %d was not answered: %s', number, error)
        except exceptions.MigratorError as error:
            LOG.error('heartbeat %d was refused: %s: %s', number, error.kind, error)
        return None


class Question:
    """Something slow that is asked in the background. While one answer is waited for, no second question is put.

    whom: in words, for the log. ask: the question, which blocks and raises.
    """

    def __init__(self, whom, ask, clock=time.monotonic):
        self._whom = whom
        self._ask = ask
        self._clock = clock
        self._pending = None
        self.asked = 0.0                 # when the question was put whose answer is waited for, or came last
        self.trouble = ''                # why there was no answer the last time, in words

    def answer(self, patience):
        """Give the answer, or None if there is none within `patience` seconds, or an error; `trouble` tells why."""
        self.put()
        answer = None
        try:
            answer = self._pending.wait(patience)
            self.trouble = ''
        except TimeoutError:
            self.trouble = f'{self._whom} does not answer'
            LOG.warning('%s', self.trouble)
            return None
        except exceptions.MigratorError as error:
            self.trouble = str(error)
            LOG.warning('%s cannot be asked: %s', self._whom, error)
        except Exception as error:
            self.trouble = f'{type(error).__name__}: {error}'
            LOG.exception('asking %s failed by a defect', self._whom)
        self._pending = None
        return answer

    def put(self):
        """Put the question, if it is not waiting for an answer."""
        if self._pending is None:
            self.asked = self._clock()
            self._pending = concurrency.spawn(self._ask)
