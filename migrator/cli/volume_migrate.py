"""migrator volume migrate: move a volume to another pool, or ask which ways would be tried; and the rate of a copy that runs."""
from migrator.cli import arguments, migration, output, waiting
from migrator.cli.volume import add_volume

DRY_RUN = (
    output.Column('possible', 'Possible', output.yes),
    output.Column('volume_name', 'Volume'),
    output.Column('volume_id', 'Volume ID'),
    output.Column('from', 'From'),
    output.Column('to', 'To'),
    output.Column('size', 'Size', output.size),
    output.Column('type', 'Type'),
    output.Column('ways', 'Ways, in this order', lambda ways: '\n'.join(map(output.plain, ways))),
)

LIMIT = 2 ** 40


class VolumeMigrate(waiting.MigrationCommand):
    """Move a volume to another pool. Its id stays, and no instance may have it when this begins.

    The source's array is asked to move it, else the target's array to take it over; if both decline, the data is copied. When an array
    takes it over while the data follows, the volume can be attached as soon as its migration status is migrating_attachable. A dry run
    tells which ways would be tried.
    """

    def add_arguments(self, parser):
        """Name what moves where, and how."""
        add_volume(parser)
        parser.add_argument('pool', metavar='HOST@BACKEND[#POOL]', help='destination; without a pool, the one with the most room')
        parser.add_argument('--force-host-copy', action='store_true', help='ask no array, copy the data')
        parser.add_argument('--lock-volume', action='store_true', help='let nobody attach it before the end')
        parser.add_argument('--type', default='', metavar='TYPE', dest='new_type', help='give it another type, which takes a copy')
        parser.add_argument('--verify', default='sampled', choices=['sampled', 'full'],
                            help='how much of a copy is compared with the source; default: sampled')
        add_bandwidth(parser, '--bandwidth')
        either = parser.add_mutually_exclusive_group()
        self.add_wait(either)
        either.add_argument('--dry-run', action='store_true', help='only tell which ways would be tried')
        waiting.add_timeout(parser)
        waiting.add_request_id(parser)

    def begin(self, parsed):
        """Ask for the migration, or for what it would be."""
        options = {'force_host_copy': parsed.force_host_copy, 'lock_volume': parsed.lock_volume, 'new_type': parsed.new_type,
                   'verification': parsed.verify, 'bandwidth': rate(parsed.bandwidth), 'dry_run': parsed.dry_run}
        if parsed.dry_run:
            self.columns = DRY_RUN
        return self.api.volume_migrate(parsed.volume, parsed.pool, parsed.request_id, options)


class MigrationSetBandwidth(waiting.MigrationCommand):
    """Change the bandwidth limit of a volume's copy, while it runs too."""

    def add_arguments(self, parser):
        """Name it, and the limit."""
        migration.add_migration(parser)
        add_bandwidth(parser, 'bandwidth')
        parser.set_defaults(timeout=None, wait=False)

    def begin(self, parsed):
        """Change it."""
        return self.api.set_bandwidth(parsed.migration, rate(parsed.bandwidth))


def add_bandwidth(parser, name):
    """Add the limit."""
    more = {'default': '0'} if name.startswith('--') else {}
    parser.add_argument(name, metavar='MIB', help='limit of the copy in MiB a second, or with a suffix K, M, G or T; 0 is no limit', **more)


def rate(text):
    """Read a limit. Returns bytes a second."""
    return arguments.mib(text, 'the bandwidth', 0, LIMIT >> 20) << 20
