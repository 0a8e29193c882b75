"""Progress bars for migrations, drawn by rich in a terminal. Imported only where there is one."""
import contextlib

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from migrator.cli import output
from migrator.states import Status

BAR_WIDTH = 40
STYLES = {Status.COMPLETED: 'green', Status.FAILED: 'red', Status.CANCELLED: 'yellow', Status.NEEDS_OPERATOR: 'bold red',
          Status.UNDOING: 'yellow'}


class Rate:
    """Bytes a second, from what the hypervisor says that it has copied, by the hypervisor's own clock."""

    def __init__(self):
        self._last = None
        self._rate = 0.0

    def update(self, job):
        """Take a job as a dict; returns the rate since the previous news, or since the beginning when there is none."""
        done = job.get('memory_processed', 0) + job.get('disk_processed', 0)
        elapsed = job.get('elapsed_ms', 0)
        before, since = self._last or (0, 0)
        if elapsed < since or done < before:  # another attempt has begun
            before, since = 0, 0
        if elapsed > since:
            self._rate = (done - before) * 1000 / (elapsed - since)
            self._last = (done, elapsed)
        return self._rate


class Bars:
    """One block for each migration: where it stands, a bar each for memory and disk, and how it goes."""

    def __init__(self, live, clock):
        self._live = live
        self._clock = clock
        self._rates = {}
        self._began = {}

    def update(self, views):
        """Take news of all, and draw."""
        self._live.update(Group(*(part for view in views for part in self.block(view))), refresh=True)

    def block(self, view):
        """Draw one migration."""
        status = Status(view['status'])
        job = view['progress']
        where = view['source_host'] + (f' → {view["destination_host"]}' if view['destination_host'] else '')
        yield Text(f'{output.plain(output.guest(view))}  {where}  {output.kind(view["kind"])}', style='bold')
        yield Text('  ' + output.status(view['status']), style=STYLES.get(status, ''))
        if job and not (status.terminal and status is not Status.COMPLETED):
            yield bars_of(view)
            if not status.terminal:
                yield Text('  ' + self.pace(view))
        why = (view['error'] if status.terminal else '') or view['reason']
        if why:
            yield Text(f'  {output.plain(why)}', style='dim')

    def pace(self, view):
        """Say how it goes: rate, dirty rate, round, expected downtime."""
        job = view['progress']
        rate = self._rates.setdefault(view['id'], Rate()).update(job)
        words = [f'{output.size(int(rate))}/s'] if rate else []
        if job.get('dirty_rate'):
            words.append(f'{output.size(job["dirty_rate"])}/s written by the guest')
        if job.get('iteration'):
            words.append(f'round {job["iteration"]}')
        if job.get('downtime_ms'):
            words.append(f'expected downtime {output.duration(job["downtime_ms"])}')
        if job.get('elapsed_ms'):
            words.append(f'for {output.duration(job["elapsed_ms"])}')
        return ', '.join(words)


def bars_of(view):
    """Draw the bars of memory and disk."""
    grid = Table.grid(padding=(0, 1))
    for what in ('memory', 'disk'):
        total = view['progress'].get(f'{what}_total', 0)
        if total:
            done = total if view['status'] == Status.COMPLETED else max(0, total - view['progress'].get(f'{what}_remaining', 0))
            grid.add_row(f'  {what:<6}', ProgressBar(total=total, completed=done, width=BAR_WIDTH), f'{100 * done // total:>3} %',
                         f'{output.size(done)} of {output.size(total)}')
    return grid


@contextlib.contextmanager
def bars(stream, clock):
    """Give a display on a terminal, which stays there when it is over."""
    with Live(console=Console(file=stream, highlight=False, markup=False), auto_refresh=False, transient=False) as live:
        yield Bars(live, clock)
