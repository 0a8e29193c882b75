"""migrator migration recover: have a migration looked at now, and say of a host that cannot be asked that it is off."""
from migrator.cli import arguments, migration, waiting


class MigrationRecover(waiting.WaitCommand):
    """Have the hosts of a migration asked now where the guest is; what follows from it is begun.

    It answers at once, before they do, for a silent host is waited for; --wait waits for what comes of it. No state is set by hand.

    For a host that is off and cannot answer, --assert-dead says so: from then on its silence counts as "nothing runs there". Say it only
    of a host whose power you know to be cut: if it still runs the guest, there may be two of them. Who said it is recorded. With --wait,
    the exit code is 9 if the migration needs an operator still, now that the hosts were asked.
    """

    def add_arguments(self, parser):
        """Name the migration, and the host that is off."""
        migration.add_migration(parser)
        parser.add_argument('--assert-dead', type=arguments.host, metavar='HOST',
                            help='a host of this migration that you know to be off; recorded with your name')

    def begin(self, parsed):
        """Recover it."""
        view = self.api.recover(parsed.migration, parsed.assert_dead)
        self.since = view['updated_at']
        return view

    def below(self, view):
        """Say how to see the answer."""
        if self.waited:
            return super().below(view)
        return ['', f'The hosts are being asked; `migrator migration show {view["id"]}` tells what came of it.']
