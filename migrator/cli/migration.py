"""migrator migration …: what is under way and what became of it; ending it early, one way or the other."""
import argparse

from migrator import exceptions
from migrator.cli import arguments, base, fields, output, waiting
from migrator.states import Status

#: Largest page that the conductor gives.
PAGE = 1000


def status(text):
    """Read a status, written with _ or - between its words."""
    value = text.lower().replace('-', '_')
    if value not in list(Status):
        raise argparse.ArgumentTypeError(f'{text!r:.40} is no status; there are {", ".join(Status)}')
    return value


def add_migration(parser):
    """Name a migration."""
    parser.add_argument('migration', metavar='MIGRATION', type=migration_id, help='id of the migration')


def migration_id(text):
    """Read the id of a migration."""
    return arguments.uuid(text, 'the id of a migration')


class MigrationList(base.ListCommand):
    """List migrations, newest first.

    Without --volumes or --all-kinds only live migrations; --needs-attention lists work of every kind that needs an operator or owes a
    cleanup.
    """

    def add_arguments(self, parser):
        """Say which ones."""
        parser.add_argument('--needs-attention', action='store_true', help='only what needs an operator or owes a cleanup; any kind')
        parser.add_argument('--instance', type=arguments.instance, metavar='INSTANCE', help='only of this instance, by uuid or name')
        parser.add_argument('--volume', type=arguments.instance, metavar='VOLUME', help='only of this volume, by id or name')
        parser.add_argument('--volumes', action='store_true', help='migrations of volumes, not of instances')
        parser.add_argument('--host', type=arguments.host, help='only from or to this host')
        parser.add_argument('--status', type=status, help=f'only in this status: {", ".join(Status)}')
        parser.add_argument('--all-kinds', action='store_true', help='also all other work on instances and volumes')
        parser.add_argument('--limit', type=int, default=100, metavar='N', help='how many at most; default: 100')

    def ask(self, parsed):
        """Ask for as many pages as it takes."""
        if parsed.limit < 1:
            raise exceptions.InvalidRequest(f'--limit must be 1 or more, not {parsed.limit}')
        filters = {name: getattr(parsed, name) for name in ('instance', 'volume', 'host', 'status') if getattr(parsed, name)}
        if parsed.needs_attention:
            filters['needs_attention'] = True
            self.nothing = 'nothing needs attention'
        elif not parsed.all_kinds:
            filters['kind'] = 'volume_migration' if parsed.volumes or parsed.volume else 'live_migration'
        return pages(lambda limit, marker: self.api.list(filters, limit, marker), 'id', parsed.limit)

    columns = fields.LIST
    long = fields.LONG

    def shown(self, parsed):
        """Show the kind where kinds are mixed, and the reason where somebody is needed."""
        if parsed.needs_attention:
            self.columns, self.long = fields.ATTENTION, fields.LONG_ATTENTION
        elif parsed.all_kinds:
            self.columns, self.long = fields.LIST_KINDS, fields.LONG_KINDS
        elif parsed.volumes or parsed.volume:
            self.columns, self.long = fields.LIST_VOLUMES, fields.LONG_VOLUMES
        return super().shown(parsed)


def pages(ask, key, limit=None):
    """Read a list page by page. ask: (limit, marker) -> views. key: of the marker. limit: how many in all; None is all there are."""
    found = []
    while limit is None or len(found) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        page = ask(size, found[-1][key] if found else None)
        found += page
        if len(page) < size:
            break
    return found


class MigrationShow(base.ShowCommand):
    """Show one migration with its timeline."""

    columns = fields.SHOW

    def add_arguments(self, parser):
        """Name it."""
        add_migration(parser)

    def ask(self, parsed):
        """Ask for it."""
        return self.api.show(parsed.migration)

    def below(self, view):
        """Show the timeline."""
        return ['', 'Timeline', *output.timeline(view['events'])]


class MigrationAbort(waiting.WaitCommand):
    """Abort a migration; what it has begun is undone.

    Refused once the guest runs at the destination. With --wait, the exit code is 0 if it was cancelled and 4 if the abort came too
    late after all.
    """

    aborting = True

    def add_arguments(self, parser):
        """Name it."""
        add_migration(parser)

    def begin(self, parsed):
        """Abort it."""
        return self.api.abort(parsed.migration)


class MigrationForceComplete(waiting.WaitCommand):
    """Make a running migration converge, at the price of downtime: the guest is paused until the rest is copied."""

    def add_arguments(self, parser):
        """Name it."""
        add_migration(parser)

    def begin(self, parsed):
        """Force it."""
        return self.api.force_complete(parsed.migration)
