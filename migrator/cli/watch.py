"""migrator migration watch: progress bars in a terminal, a line for each change elsewhere."""
from migrator import exceptions
from migrator.cli import base, exit_codes, output, pace, waiting
from migrator.cli.migration import migration_id
from migrator.states import Status

#: A line is due when so many percent more are copied.
STEP = 10


class MigrationWatch(base.Request):
    """Look on while migrations go on, until all have ended.

    Shows what is being done, how much of memory and disks is copied, how fast, what remains, how long that takes still, and in the end
    the downtime: with bars in a terminal, elsewhere as a line for each change. One that needs an operator is watched on. The exit code
    is that of the first one named that did not complete.
    """

    def add_arguments(self, parser):
        """Name them."""
        parser.add_argument('migrations', metavar='MIGRATION', nargs='+', type=migration_id, help='id of a migration')
        waiting.add_timeout(parser)

    def take_action(self, parsed_args):
        """Watch, and give the exit code."""
        migrations = list(dict.fromkeys(parsed_args.migrations))
        if not self.app.stdout.isatty():
            return self._end(migrations, self._watch(migrations, parsed_args.timeout, Lines(self.app.stdout)))
        from migrator.cli import progress
        with progress.bars(self.app.stdout) as display:
            known = self._watch(migrations, parsed_args.timeout, display)
        return self._end(migrations, known)

    def _watch(self, migrations, timeout, display):
        poller = waiting.Poller(self.app, timeout)
        views = self.app.watched
        views.update(dict.fromkeys(migrations))
        while True:
            for migration in migrations:
                if not views[migration] or not Status(views[migration]['status']).terminal:
                    views[migration] = poller.show(migration) or views[migration]
            known = [views[migration] for migration in migrations if views[migration]]
            display.update(known)
            going_on = len(known) < len(migrations) or any(not Status(view['status']).terminal for view in known)
            if not going_on or not poller.pause():
                return known

    def _end(self, migrations, known):
        if len(known) < len(migrations):
            raise exceptions.Unavailable('no conductor answered in time')
        verdicts = [waiting.verdict(view, not Status(view['status']).terminal) for view in known]
        for code, sentence in verdicts:
            if code == exit_codes.TIMED_OUT:    # how the others ended stands in their last lines
                self.app.complain(sentence)
        return next((code for code, _ in verdicts if code), 0)


class Lines:
    """Writes a line whenever something changed that is worth one."""

    def __init__(self, stream):
        self._stream = stream
        self._last = {}
        self._paces = {}

    def update(self, views):
        """Take news of all."""
        for view in views:
            share = output.percent(view) if output.copies(view) else None
            figures = self._paces.setdefault(view['id'], pace.Pace()).words(view) if share is not None else []
            doing = pace.words_of(view).partition(',')[0]       # without the round: there may be hundreds
            news = (view['status'], view['step'], view['reason'], doing, None if share is None else share // STEP)
            if self._last.get(view['id']) != news:
                self._last[view['id']] = news
                self._stream.write(line(view, figures) + '\n')
                self._stream.flush()


def line(view, figures):
    """Write where a migration stands as one line. figures: what is known of its copying, in words."""
    where = output.where(view, '->')
    status = Status(view['status'])
    doing = [pace.words_of(view)] if figures and view['progress'].get('active') else []
    why = view['error'] if status.terminal and view['error'] else view['reason']
    cost = pace.result_of(view) if status.terminal else ''
    words = ', '.join([status.value, *doing, *figures]) + f': {why}' + (f'; {cost}' if cost else '')
    return output.plain(f'{output.moment(view["updated_at"], True)}  {output.guest(view)}  {where}  {words}')
