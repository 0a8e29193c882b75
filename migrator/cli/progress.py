"""Progress bars for migrations, drawn by rich in a terminal. Imported only where there is one."""
import contextlib

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from migrator.cli import output, pace
from migrator.states import Status

BAR_WIDTH = 40
STYLES = {Status.COMPLETED: 'green', Status.FAILED: 'red', Status.CANCELLED: 'yellow', Status.NEEDS_OPERATOR: 'bold red',
          Status.UNDOING: 'yellow'}


class Bars:
    """One block for each migration: where it stands, a bar each for memory and disk, and how it goes."""

    def __init__(self, live):
        self._live = live
        self._paces = {}

    def update(self, views):
        """Take news of all, and draw."""
        self._live.update(Group(*(part for view in views for part in self.block(view))), refresh=True)

    def block(self, view):
        """Draw one migration."""
        status = Status(view['status'])
        job = view['progress']
        where = output.where(view, '→')
        yield Text(f'{output.plain(output.guest(view))}  {where}  {output.kind(view["kind"])}', style='bold')
        doing = pace.words_of(view)
        yield Text(f'  {status.value}' + ('' if doing == status.value else f': {doing}'), style=STYLES.get(status, ''))
        if job and not (status.terminal and status is not Status.COMPLETED):
            yield bars_of(view)
        words = pace.result_of(view) if status.terminal else self.pace(view)
        if words:
            yield Text(f'  {words}')
        why = (view['error'] if status.terminal else '') or view['reason']
        if why:
            yield Text(f'  {output.plain(why)}', style='dim')

    def pace(self, view):
        """Say how it goes: per cent, rate, what remains, time left, what the guest writes, expected downtime."""
        job = view['progress']
        words = self._paces.setdefault(view['id'], pace.Pace()).words(view)
        if job.get('downtime_ms'):
            words.append(f'expected downtime {output.duration(job["downtime_ms"])}')
        return ', '.join(words)


def bars_of(view):
    """Draw the bars of memory and disk."""
    grid = Table.grid(padding=(0, 1))
    for what in ('memory', 'disk'):
        done, total = pace.share_of(view, what)
        if total:
            grid.add_row(f'  {what:<6}', ProgressBar(total=total, completed=done, width=BAR_WIDTH), f'{100 * done // total:>3} %',
                         f'{output.size(done)} of {output.size(total)}')
    return grid


@contextlib.contextmanager
def bars(stream):
    """Give a display on a terminal, which stays there when it is over."""
    with Live(console=Console(file=stream, highlight=False, markup=False), auto_refresh=False, transient=False) as live:
        yield Bars(live)
