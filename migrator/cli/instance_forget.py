"""migrator instance forget: taking an instance out of the catalogue that no host has any more."""
from migrator.cli import arguments, base, instance, output


def names(found):
    """Write names of hosts."""
    return '\n'.join(map(output.plain, found))


COLUMNS = (
    *(column for column in instance.ALL if column.key in ('name', 'uuid', 'host', 'state')),
    output.Column('asked', 'Hosts asked', names),
    output.Column('attested', 'Attested to be off', names),
    output.Column('not_asked', 'Not asked', names),
)


class InstanceForget(base.ShowCommand):
    """Take an instance out of the catalogue that no host has any more, such as one that was undefined by hand.

    Every host is asked now; it is refused if one has the instance or files of it, or does not answer. For a host that is off and
    cannot answer, --assert-dead says so. A host that is disabled and silent is left out, unless the instance was seen there last. Nothing
    is removed at any host. It is recorded with your name; should a host tell of the instance after all, it is in the catalogue again.
    """

    columns = COLUMNS

    def add_arguments(self, parser):
        """Name the instance, and the hosts that are off."""
        instance.add_instance(parser)
        parser.add_argument('--assert-dead', type=arguments.host, metavar='HOST', action='append', default=[],
                            help='a host that you know to be off; recorded with your name; may be given several times')

    def ask(self, parsed):
        """Have it forgotten."""
        view = self.api.instance_forget(parsed.instance, parsed.assert_dead)
        if view['not_asked']:
            self.complaint = f'not asked, for they are disabled and silent: {", ".join(map(output.plain, view["not_asked"]))}'
        return view
