"""migrator backend …: the arrays that volumes are made at, and how much room they have."""
from migrator.cli import base, output


def pools(found):
    """Describe pools, one a line."""
    return '\n'.join(f'{output.plain(pool["name"].partition("#")[2])}: {output.size(pool["free"])} free of {output.size(pool["total"])}, '
                     f'{promised(pool)}{pool["volumes"]} volumes of {output.size(pool["allotted"])} in all' for pool in found)


def promised(pool):
    """Tell what of the free room is spoken for, if any is. A conductor of a former version does not tell."""
    return f'{output.size(pool["promised"])} of it promised, ' if pool.get('promised') else ''


def words(found):
    """Join words of a list."""
    return ', '.join(map(output.plain, found))


def state(view):
    """Tell whether it can be used, and why not."""
    return output.plain(view['state'] + (f': {view["why"]}' if view['why'] else ''))


ALL = (
    output.Column('name', 'Name'),
    output.Column('driver', 'Driver'),
    output.Column('state', 'State'),
    output.Column('enabled', 'Enabled', output.yes),
    output.Column('types', 'Types', words),
    output.Column('pools', 'Pools', len),
    output.Column('total', 'Size', output.size),
    output.Column('free', 'Free', output.size),
    output.Column('volumes', 'Volumes'),
    output.Column('debts', 'Debts'),
    output.Column('last_seen', 'Last seen', output.moment),
)

#: For --long and CSV.
LONG = (*ALL, output.Column('why', 'Why'))

LIST = tuple(column for column in ALL if column.key not in ('enabled', 'debts', 'last_seen'))

SHOW = (
    *ALL[:2],
    output.Column('state', 'State', told=state),
    ALL[3],
    output.Column('disabled_reason', 'Disabled because'),
    output.Column('draining', 'Agent stopping', output.yes),
    ALL[4],
    output.Column('capabilities', 'Capabilities', words),
    output.Column('array_id', 'Array'),
    output.Column('pools', 'Pools', pools),
    *ALL[6:],
    output.Column('process_id', 'Agent process'),
)


class BackendList(base.ListCommand):
    """List all backends of all volume agents."""

    columns = LIST
    long = LONG
    nothing = 'no volume agent has told of a backend yet'

    def ask(self, _parsed):
        """Ask for the backends."""
        return self.api.backends()


class BackendShow(base.ShowCommand):
    """Show one backend with its pools."""

    columns = SHOW

    def add_arguments(self, parser):
        """Name it."""
        parser.add_argument('backend', metavar='HOST@BACKEND', help='name of the backend')

    def ask(self, parsed):
        """Ask for it."""
        return self.api.backend_show(parsed.backend)
