"""migrator live-migrate: move a running instance to another host, or ask whether it could be."""
from migrator.cli import arguments, exit_codes, output, waiting

DRY_RUN = (
    output.Column('possible', 'Possible', output.yes),
    output.Column('reasons', 'Against it', lambda reasons: '\n'.join(output.plain(reason) for reason in reasons)),
    output.Column('instance_name', 'Instance'),
    output.Column('instance_uuid', 'Instance UUID'),
    output.Column('source_host', 'From'),
    output.Column('destination_host', 'To'),
    output.Column('copy', 'Disks to copy', ', '.join),
)


class LiveMigrate(waiting.MigrationCommand):
    """Live-migrate an instance to another host.

    It goes on by itself once it is accepted; --wait looks on. A dry run checks both hosts, changes nothing, and exits with 4 if the
    migration would be refused.
    """

    def add_arguments(self, parser):
        """Name what moves where, and how."""
        parser.add_argument('instance', metavar='INSTANCE', type=arguments.instance, help='uuid or name')
        parser.add_argument('host', metavar='HOST', type=arguments.host, help='destination')
        parser.add_argument('--bandwidth', metavar='MIB', default='0',
                            help='limit in MiB a second, or with a suffix K, M, G or T; default: 0, which is no limit')
        either = parser.add_mutually_exclusive_group()
        self.add_wait(either)
        either.add_argument('--dry-run', action='store_true', help='only check whether it is possible')
        waiting.add_timeout(parser)
        waiting.add_request_id(parser)

    def begin(self, parsed):
        """Ask for the migration, or for the verdict."""
        options = {'bandwidth_mib': arguments.mib(parsed.bandwidth, 'the bandwidth', 0, 2 ** 30), 'dry_run': parsed.dry_run}
        if parsed.dry_run:
            self.columns = DRY_RUN
        view = self.api.live_migrate(parsed.instance, parsed.host, parsed.request_id, options)
        if parsed.dry_run and not view['possible']:
            self.code = exit_codes.CONFLICT
        return view
