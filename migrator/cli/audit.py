"""migrator audit: what lies on the hosts that nobody answers for."""
from migrator.cli import arguments, base, exit_codes, output

COLUMNS = (
    output.Column('host', 'Host'),
    output.Column('kind', 'Kind'),
    output.Column('resource', 'Resource'),
    output.Column('what', 'What'),
    output.Column('todo', 'What to do'),
)


def hosts(count):
    """Write how many hosts something was done to, up to the verb."""
    return {0: 'no host was', 1: '1 host was'}.get(count, f'{count} hosts were')


class Audit(base.ListCommand):
    """Compare what is on the hosts with what the database knows, and name what nobody answers for. Changes nothing.

    Debts are listed too, and hosts that could not be asked. The exit code is 0 if nothing was found, 11 if something was, and 12 if nothing
    was found but a host could not be asked.
    """

    columns = COLUMNS
    code = exit_codes.OK

    def add_arguments(self, parser):
        """Say which host."""
        parser.add_argument('--host', type=arguments.host, help='only this host; copies at other hosts are then not seen')

    def ask(self, parsed):
        """Ask, and put all of it into one list."""
        said = self.api.audit(parsed.host)
        self.code = exit_codes.FOUND if said['findings'] else exit_codes.NOT_AUDITED if said['not_audited'] else exit_codes.OK
        rows = list(said['findings'])
        rows += [{'kind': 'debt', 'host': d['host'], 'resource': d['instance_uuid'] or d.get('volume_id', ''),
                  'what': f'{d["action"]}: {d["reason"]}', 'todo': 'nothing; it is done when the host can'} for d in said['debts']]
        rows += [{'kind': 'not audited', 'host': h['host'], 'resource': '', 'what': h['why'], 'todo': 'audit again when the host is back'}
                 for h in said['not_audited']]
        self.nothing = f'{hosts(len(said["audited"]))} audited, nothing was found'
        if said['left_off']:
            self.app.complain(f'{said["left_off"]} more findings are not shown')
        return rows

    def run(self, parsed_args):
        """Run and print. Returns the exit code."""
        super().run(parsed_args)
        return self.code
