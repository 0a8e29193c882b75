"""What the demonstration looks like: progress bars and colours in a terminal, plain lines elsewhere."""
import contextlib
import datetime
import time

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from migrator.cli.pace import share_of, words_of
from migrator.states import Status

MIB = 1 << 20
#: Columns of output that no terminal limits.
PLAIN_WIDTH = 132
BAR_WIDTH = 32
#: Columns from which on steps and reasons stand side by side.
WIDE = 100


def moment(text):
    """Read a time of the API; returns seconds since 1970."""
    return datetime.datetime.fromisoformat(text).timestamp()


class Show:
    """The demonstration's output."""

    def __init__(self, file=None):
        """file: where to write, None is standard output."""
        self.console = Console(file=file, highlight=False, soft_wrap=False)
        if not self.console.is_terminal:
            self.console = Console(file=file, highlight=False, width=PLAIN_WIDTH, color_system=None)
        self.live = self.console.is_terminal

    def title(self, text):
        """Begin."""
        self.console.print(Text(text, 'bold'))

    def heading(self, text):
        """Begin a part."""
        self.console.print()
        self.console.print(Text(text, 'bold cyan'))

    def line(self, text, style=''):
        """Say something."""
        self.console.print(Text(f'  {text}', style))

    def command(self, text):
        """Show a command as one line, however narrow the output is: it is to be copied."""
        self.console.print(Text(f'  {text}'), soft_wrap=True)

    def fact(self, name, value):
        """Show one number with its name."""
        self._row(Text(f'{name:<24}'), Text(value, 'bold'))

    def finding(self, good, text):
        """Show the outcome of one check."""
        self._row(Text('ok   ', 'green') if good else Text('WRONG', 'bold red'), Text(text))

    def _row(self, *cells):
        """Print cells next to each other; the last one folds within its own column."""
        grid = Table.grid(padding=(0, 1, 0, 0))
        for number in range(len(cells)):
            grid.add_column(no_wrap=number < len(cells) - 1)
        grid.add_row(*cells)
        self.console.print(Padding(grid, (0, 0, 0, 2), expand=False))

    def error(self, text):
        """Say what went wrong."""
        self.console.print(Text(text, 'bold red'))

    @contextlib.contextmanager
    def working(self, text):
        """Show that something takes time, and then how long it took."""
        started = time.monotonic()
        spinner = Live(Spinner('dots', Text(f' {text}')), console=self.console, transient=True, refresh_per_second=8)
        try:
            with spinner if self.live else contextlib.nullcontext():
                yield
        except Exception:
            self.finding(False, text)
            raise
        self.finding(True, f'{text} ({time.monotonic() - started:.1f} s)')

    def copying(self):
        """Give the display of one migration, a context manager with `update(view, guest)`."""
        return Bars(self.console) if self.live else Lines(self.console)

    def timeline(self, view):
        """Show what happened to a migration, and why, with the seconds since it was asked for."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
        wide = self.console.width >= WIDE
        table.add_column('seconds', justify='right', no_wrap=True)
        for name in ('status', 'step', 'why') if wide else ('status', 'step, and why'):
            table.add_column(name, overflow='fold')
        began = moment(view['created_at'])
        for event in view['events']:
            cells = (event['step'], event['reason']) if wide else (f'{event["step"]}\n  {event["reason"]}',)
            table.add_row(f'{moment(event["at"]) - began:.2f}', event['status'], *cells)
        self.console.print()
        self.console.print(table)


class Bars:
    """A migration in a terminal: status, bars for memory and disk, the guest."""

    def __init__(self, console):
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._started = time.monotonic()

    def __enter__(self):
        self._live.start()
        return self

    def __exit__(self, *_):
        self._live.stop()

    def update(self, view, guest):
        """Show a migration as the conductor sees it. guest: what the guest says of itself, in words."""
        grid = Table.grid(padding=(0, 2))
        for what in ('memory', 'disk'):
            have, total = share_of(view, what)
            text = f'{have // MIB:>5} of {total // MIB} MiB' if total else ''
            if what == 'memory' and view['progress'].get('dirty_rate') and view['status'] == Status.RUNNING:
                text += f', {view["progress"]["dirty_rate"] // MIB} MiB/s change'
            bar = ProgressBar(total=total or 1, completed=have, width=BAR_WIDTH)
            grid.add_row(f'  {what}', bar, text)
        failed = view['status'] in (Status.FAILED, Status.CANCELLED, Status.NEEDS_OPERATOR)
        status = Text.assemble('  status  ', (f'{words_of(view):<{BAR_WIDTH}}', 'bold red' if failed else 'bold green'),
                               f'  {time.monotonic() - self._started:5.1f} s')
        self._live.update(Group(status, grid, Text.assemble('  guest   ', (guest, 'cyan'))), refresh=True)


class Lines:
    """A migration where there is no terminal: a line whenever the status changes or another quarter is copied."""

    def __init__(self, console):
        self._console = console
        self._started = time.monotonic()
        self._said = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def update(self, view, guest):
        """Show a migration as the conductor sees it. guest: what the guest says of itself, in words."""
        shares = [(what, *share_of(view, what)) for what in ('memory', 'disk')]
        now = (view['status'], *(4 * have // total if total else 0 for _, have, total in shares))
        if now == self._said:
            return
        self._said = now
        parts = [f'{what} {100 * have // total} %' for what, have, total in shares if total]
        self._console.print(f'  {time.monotonic() - self._started:5.1f} s  {"; ".join([words_of(view), *parts, guest])}')
