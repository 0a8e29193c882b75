"""Which LUNs a restarted array could not be given back, and when each is tried again. Pure, with an injected clock."""
import time

#: Seconds before the next attempt; doubled up to the longest. An attempt may hold up the array for some seconds.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0


class Unserved:
    """Keys are (pool, lun). clock: seconds, monotonic."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._waiting = {}       # key -> (why, when it is due, the pause after that)

    def failed(self, key, why):
        """Note an attempt that failed; returns True if that was not known, or was for another reason."""
        before, _, pause = self._waiting.get(key, ('', 0.0, FIRST_PAUSE))
        self._waiting[key] = why, self._clock() + pause, min(LONGEST_PAUSE, pause * 2)
        return before != why

    def served(self, key):
        """Forget what is served, or is not there any more; returns True if it had failed before."""
        return self._waiting.pop(key, None) is not None

    def due(self):
        """Give those that may be tried now."""
        now = self._clock()
        return [key for key, (_, due, _) in self._waiting.items() if due <= now]

    def clear(self):
        """Forget all: everything is tried anew."""
        self._waiting.clear()
