"""migrator debt …: cleanups that hosts owe, and giving one up whose host never comes back."""
from migrator.cli import arguments, base, output
from migrator.cli.migration import pages

LIST = (
    output.Column('id', 'ID'),
    output.Column('host', 'Host'),
    output.Column('instance_name', 'About', of=output.guest),
    output.Column('action', 'Cleanup'),
    output.Column('state', 'State'),
)
ALL = (
    *LIST[:3],
    output.Column('instance_uuid', 'Instance UUID'),
    output.Column('volume_id', 'Volume ID'),
    output.Column('agent', 'Agent'),
    output.Column('migration_id', 'Migration'),
    *LIST[3:],
    output.Column('created_at', 'Since', output.moment),
    output.Column('attempts', 'Attempts'),
    output.Column('reason', 'Reason'),
    output.Column('written_off_at', 'Written off', output.moment),
    output.Column('written_off_by', 'Written off by'),
    output.Column('written_off_why', 'Written off because'),
)


class DebtList(base.ListCommand):
    """List the cleanups that hosts owe, oldest first.

    They are done by themselves when their host is back; while one is open, its instance is not started. One that was written off stays in
    the list.
    """

    columns = LIST
    long = ALL
    nothing = 'no host owes anything'

    def add_arguments(self, parser):
        """Say of which host."""
        parser.add_argument('--host', type=arguments.host, help='only of this host')

    def ask(self, parsed):
        """Ask for as many pages as there are."""
        filters = {'host': parsed.host} if parsed.host else {}
        if parsed.host:
            self.nothing = f'{parsed.host} owes nothing'
        return pages(lambda limit, marker: self.api.debts(filters, limit, marker), 'id')


class DebtWriteOff(base.ShowCommand):
    """Give up a cleanup that a host owes which will never come back. The host is not asked, and nothing is removed.

    From then on the instance may be started again, so be sure that no copy of it runs at that host. Refused while the host is up, unless
    it has refused this cleanup. It is recorded with your name; should the host come back after all, `migrator audit` names what is left
    there.
    """

    columns = ALL

    def add_arguments(self, parser):
        """Name the debt, and ask for the reason."""
        parser.add_argument('debt', metavar='DEBT', type=lambda text: arguments.uuid(text, 'the id of a debt'), help='id of the debt')
        parser.add_argument('--reason', required=True, metavar='TEXT', help='why it will never be done; recorded with your name')

    def ask(self, parsed):
        """Write it off."""
        view = self.api.debt_write_off(parsed.debt, arguments.words(parsed.reason, 'the reason', 255))
        if view['written_off_why'] != parsed.reason:
            who, when = view['written_off_by'] or 'somebody', output.moment(view['written_off_at'])
            self.complaint = f'{who} wrote it off at {when}; that reason holds: {view["written_off_why"]}'
        return view
