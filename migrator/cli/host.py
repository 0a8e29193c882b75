"""migrator host …: what the hosts are, and which of them take new work."""
from migrator.cli import arguments, base, output

ALL = (
    output.Column('name', 'Name'),
    output.Column('state', 'State'),
    output.Column('enabled', 'Enabled', output.yes),
    output.Column('hypervisor_type', 'Hypervisor'),
    output.Column('hypervisor_version', 'Version', output.hypervisor),
    output.Column('cpus', 'CPUs'),
    output.Column('memory_mib', 'Memory', output.mib),
    output.Column('memory_free_mib', 'Free', output.mib),
    output.Column('availability_zone', 'Zone'),
    output.Column('instances', 'Instances'),
    output.Column('migrations', 'Migrations'),
    output.Column('debts', 'Debts'),
    output.Column('last_seen', 'Last seen', output.moment),
)

LIST = tuple(column for column in ALL if column.key not in ('hypervisor_type', 'hypervisor_version', 'cpus', 'availability_zone'))

SHOW = (
    output.Column('name', 'Name'),
    output.Column('state', 'State'),
    output.Column('enabled', 'Enabled', output.yes),
    output.Column('disabled_reason', 'Disabled because'),
    output.Column('conflict', 'Conflict', of=lambda view: view.get('conflict', '')),
    output.Column('draining', 'Agent stopping', output.yes, of=lambda view: view.get('draining', False)),
    output.Column('hypervisor_name', 'Name at the hypervisor'),
    *ALL[3:],
    output.Column('process_id', 'Agent process'),
)


class HostList(base.ListCommand):
    """List all hosts."""

    columns = LIST
    long = ALL

    def ask(self, _parsed):
        """Ask for the hosts."""
        return self.api.hosts()


class HostCommand(base.ShowCommand):
    """Something about one host."""

    columns = SHOW

    def add_arguments(self, parser):
        """Name the host."""
        parser.add_argument('host', metavar='HOST', type=arguments.host, help='name of the host')


class HostShow(HostCommand):
    """Show one host."""

    def ask(self, parsed):
        """Ask for the host."""
        return self.api.host_show(parsed.host)


class HostDisable(HostCommand):
    """Send no new work to a host; what runs there goes on, and instances may leave.

    Done twice, the second reason holds.
    """

    def add_arguments(self, parser):
        """Ask for the reason, which everybody is shown."""
        super().add_arguments(parser)
        parser.add_argument('--reason', required=True, metavar='TEXT', help='why; shown to everybody who wants to use the host')

    def ask(self, parsed):
        """Disable it."""
        return self.api.host_disable(parsed.host, arguments.words(parsed.reason, 'the reason', 255))


class HostEnable(HostCommand):
    """Let a host take new work again."""

    def ask(self, parsed):
        """Enable it."""
        return self.api.host_enable(parsed.host)
