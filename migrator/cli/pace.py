"""How a migration goes, from its views: what it does in words, how much is copied, how fast, and how long it takes still."""
from migrator.cli import output
from migrator.states import Status

#: From this round on, a guest that writes as fast as it is copied has shown that it does not converge.
ROUNDS = 2
#: Milliseconds over which the rate is taken.
WINDOW_MS = 5000


def words_of(view):
    """Say in words where a migration stands."""
    job = output.job(view)
    if output.copies(view) and job.get('active'):
        if job.get('disk_remaining'):
            return 'copying' if output.of_volume(view) else 'copying the disk'
        if job.get('memory_processed') or job.get('iteration', 0) > 1:
            return f'copying memory, round {max(1, job.get("iteration", 0))}'
        return 'copying'
    return output.status_words(view)


def share_of(view, what):
    """Give (bytes copied, bytes in all) of a migration's 'memory' or 'disk', (0, 0) while nothing is known."""
    job = output.job(view)
    total = job.get(f'{what}_total', 0)
    if view['status'] in (Status.FINISHING, Status.COMPLETED) and not output.copies(view):
        return total, total
    return max(0, total - job.get(f'{what}_remaining', 0)), total


def result_of(view):
    """Say what a migration that has ended cost, by the hypervisor's figures; '' where there are none."""
    figures = view.get('statistics', {})
    copied = ' and '.join(f'{output.size(figures[f"{what}_processed"])} of {what}' for what in ('memory', 'disk')
                          if figures.get(f'{what}_processed'))
    words = [f'downtime {output.duration(figures["downtime_ms"])}'] if figures.get('downtime_ms') else []
    if copied:
        words.append(f'{copied} copied' + (f' in {output.duration(figures["elapsed_ms"])}' if figures.get('elapsed_ms') else ''))
    return ', '.join(words)


class Rate:
    """Bytes a second of the last seconds, from what the hypervisor says that it has copied, by the hypervisor's own clock.

    Not of the last stretch: disks are copied in large pieces, between which nothing seems to happen.
    """

    def __init__(self):
        self._told = [(0, 0)]       # (milliseconds, bytes), oldest first; all but the first lie within the window

    def update(self, job):
        """Take a job as a dict; returns the rate over WINDOW_MS, or since the beginning when that is less."""
        done = job.get('memory_processed', 0) + job.get('disk_processed', 0)
        elapsed = job.get('elapsed_ms', 0)
        if elapsed < self._told[-1][0] or done < self._told[-1][1]:  # another attempt has begun
            self._told = [(0, 0)]
        if elapsed > self._told[-1][0]:
            self._told.append((elapsed, done))
        while len(self._told) > 2 and self._told[1][0] <= elapsed - WINDOW_MS:
            del self._told[0]
        (since, before), (until, after) = self._told[0], self._told[-1]
        return (after - before) * 1000 / (until - since) if until > since else 0.0


class Pace:
    """The figures of one migration, from one view to the next."""

    def __init__(self):
        self._rate = Rate()

    def words(self, view):
        """Take a view; give what is known in words: per cent, rate, what remains, time left, and what the guest writes meanwhile."""
        job, percent = output.job(view), output.percent(view)
        rate = job.get('rate') or self._rate.update(job)
        if percent is None or not job.get('active', True):
            return []
        left = job.get('memory_remaining', 0) + job.get('disk_remaining', 0)
        words = [f'{percent} % copied']
        if rate:
            words.append(f'{output.size(int(rate))}/s')
        if left:
            words.append(f'{output.size(left)} left')
            words += time_left(job, left, rate)
        if job.get('dirty_rate'):
            words.append(f'{output.size(job["dirty_rate"])}/s written by the guest')
        if job.get('elapsed_ms'):
            words.append(f'for {output.duration(job["elapsed_ms"])}')
        return words


def time_left(job, left, rate):
    """Say how long it takes still, as far as that can be reckoned: what the guest writes is copied again.

    left: bytes. rate: bytes a second.
    """
    dirty = job.get('dirty_rate', 0)
    if rate > dirty:
        return [f'about {output.duration(max(1, left / (rate - dirty)) * 1000)}']
    return ['no end in sight while the guest writes as fast'] if rate and job.get('iteration', 0) >= ROUNDS else []
