"""How fast the mirrors of arrays are that do not say so themselves. Pure, with an injected clock."""
import dataclasses
import time

#: Seconds over which a rate is taken: an array that mirrors for its clients' sake now and then does nothing for a moment.
WINDOW = 20.0


class Paces:
    """One for all mirrors of an agent. clock: seconds, monotonic."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._told = {}          # key -> [(when, bytes done)], oldest first; all but the first lie within the window

    def with_rate(self, key, progress):
        """Give a mirror's Progress with its rate, as far as that can be known: from the second time on that it is asked for."""
        if not progress.active or progress.rate:
            return progress
        now, told = self._clock(), self._told.setdefault(key, [])
        if told and progress.done < told[-1][1]:
            told.clear()                        # the mirror has begun anew
        if not told or now > told[-1][0]:
            told.append((now, progress.done))
        while len(told) > 2 and told[1][0] <= now - WINDOW:
            del told[0]
        (since, before), (until, after) = told[0], told[-1]
        return dataclasses.replace(progress, rate=int((after - before) / (until - since)) if until > since else 0)

    def forget(self, key):
        """Forget a mirror that is over."""
        self._told.pop(key, None)
