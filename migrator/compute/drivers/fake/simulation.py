"""How a pre-copy migration goes in time: pure arithmetic, no clock and no I/O.

Disks are copied first, then memory in iterations: each sends what the guest dirtied during the one before, until the rest fits
into the downtime limit. A guest that dirties faster than the bandwidth never gets there; pausing it does. This is QEMU's
pre-copy as seen from outside (docs/devel/migration of QEMU), without its finer points.
"""
import dataclasses

from migrator.rpc import facts

#: Seconds of downtime at which the copy switches over; QEMU's default is 300 ms.
DOWNTIME_LIMIT = 0.3
#: Beyond so many iterations a guest counts as one that never converges.
MAX_ITERATIONS = 1000


@dataclasses.dataclass(frozen=True)
class Copy:
    """One migration's amounts. Sizes in bytes, rates in bytes a second, times in seconds since the start.

    minimum: a copy that would be faster is stretched to it. paused_after: when the guest was paused to make it converge.
    """

    memory: int
    disk: int
    bandwidth: int
    dirty_rate: int
    minimum: float = 0.0
    paused_after: float | None = None

    def duration(self):
        """Seconds that the migration takes in all; None when it never converges."""
        if self.paused_after is not None:
            job = self._unpaused().at(self.paused_after)
            return self.paused_after + (job.memory_remaining + job.disk_remaining) / self.bandwidth
        raw = self._raw()
        return None if raw is None else max(raw, self.minimum)

    def downtime(self):
        """Seconds for which the guest stands still in the end; None when the copy never converges."""
        if self.paused_after is not None:
            return self.duration() - self.paused_after
        last = self._iterations()
        return None if last is None else last[-1] / self.bandwidth

    def at(self, elapsed):
        """What the hypervisor would say after `elapsed` seconds: a facts.Job that is active."""
        if self.paused_after is not None and elapsed > self.paused_after:
            return self._at_paused(elapsed)
        raw = self._raw()
        clock = max(0.0, elapsed) / (self.minimum / raw if raw and raw < self.minimum else 1.0)
        disk = min(self.disk, int(clock * self.bandwidth))
        sent, remaining, iteration = self._memory_at(max(0.0, clock - self.disk / self.bandwidth))
        return self._job(elapsed, disk, sent, remaining, iteration)

    def _unpaused(self):
        return dataclasses.replace(self, paused_after=None)

    def _iterations(self):
        """Bytes that each iteration sends, the last of them during the downtime; None when it never converges."""
        ratio, amounts = self.dirty_rate / self.bandwidth, [self.memory]
        while amounts[-1] * ratio > self.bandwidth * DOWNTIME_LIMIT:
            if ratio >= 1 or len(amounts) >= MAX_ITERATIONS:
                return None
            amounts.append(amounts[-1] * ratio)
        return [*amounts, min(self.memory, amounts[-1] * ratio)]

    def _raw(self):
        amounts = self._iterations()
        return None if amounts is None else (self.disk + sum(amounts)) / self.bandwidth

    def _memory_at(self, seconds):
        """Memory sent, remaining and the number of the iteration, `seconds` after the disks were done."""
        budget, amounts = seconds * self.bandwidth, self._iterations()
        if amounts is None:  # every round sends about all of the memory again
            rounds = int(budget // self.memory) if self.memory else 0
            return int(budget), max(0, min(self.memory, int(self.memory - (budget - rounds * self.memory)))), rounds + 1
        sent = 0.0
        for number, amount in enumerate(amounts, 1):
            if budget < amount:
                return int(sent + budget), int(amount - budget), number
            sent, budget = sent + amount, budget - amount
        return int(sent), 0, len(amounts)

    def _at_paused(self, elapsed):
        then = self._unpaused().at(self.paused_after)
        budget = int((elapsed - self.paused_after) * self.bandwidth)
        disk = min(budget, then.disk_remaining)
        memory = min(budget - disk, then.memory_remaining)
        job = self._job(elapsed, then.disk_processed + disk, then.memory_processed + memory, then.memory_remaining - memory,
                        then.iteration + 1)
        return dataclasses.replace(job, dirty_rate=0)

    def _job(self, elapsed, disk, sent, remaining, iteration):
        return facts.Job(
            active=True, memory_total=self.memory, memory_processed=sent, memory_remaining=remaining, disk_total=self.disk,
            disk_processed=disk, disk_remaining=self.disk - disk, dirty_rate=self.dirty_rate, iteration=iteration,
            downtime_ms=int(remaining / self.bandwidth * 1000), elapsed_ms=int(max(0.0, elapsed) * 1000))
