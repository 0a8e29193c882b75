"""migrator instance …: what guests there are, and starting, stopping and deleting them."""
import textwrap

from migrator.cli import arguments, base, output, waiting
from migrator.cli.migration import pages
from migrator.states import InstanceState

MAX_GRACE = 3600


def disks(found):
    """Describe disks, one a line."""
    return '\n'.join(map(disk, found))


def disk(found):
    """Describe a disk: where it is, its size, and whether a live migration would ever copy it."""
    notes = [output.plain(found['path']), found.get('format', '')]
    if found.get('size'):
        notes.append(output.size(found['size']))
    if found.get('kind') == 'network':
        notes.append('volume')
    if found.get('serial'):
        notes.append(f'serial {output.plain(found["serial"])}')
    if found.get('backing'):
        notes.append(f'on {output.plain(found["backing"])}')
    notes += [word for word in ('readonly', 'shareable') if found.get(word)]
    return f'{found["target"]}: ' + ', '.join(filter(None, notes))


def sighting(found):
    """Tell of another host that has the instance, too."""
    return f'{output.plain(found["state"])} on {output.plain(found["host"])}' if found else ''


def state(view):
    """Tell the state; of a guest whose host is down, that it is what the host told last."""
    if view.get('host_state', 'up') == 'up':
        return output.plain(view['state'])
    seen = f', last seen {output.ago(view["host_silent_seconds"])} ago' if view['host_last_seen'] else ''
    return f'{output.plain(view["state"])} (host down{seen})'


def folded_state(view):
    """Tell the state in a column that leaves room for others."""
    return textwrap.fill(state(view), STATE_WIDTH)


#: Characters of a line of a state in a list; with it the table fits into 120.
STATE_WIDTH = 21

ALL = (
    output.Column('name', 'Name'),
    output.Column('uuid', 'UUID'),
    output.Column('host', 'Host'),
    output.Column('state', 'State', told=folded_state),
    output.Column('memory_mib', 'Memory', output.mib),
    output.Column('vcpus', 'vCPUs'),
    output.Column('locked_by', 'Locked by'),
    output.Column('debts', 'Debts'),
)

LIST = tuple(column for column in ALL if column.key != 'locked_by')

SHOW = (
    *ALL[:3],
    output.Column('state', 'State', told=state),
    *ALL[4:6],
    output.Column('disks', 'Disks', disks),
    output.Column('managed', 'Made by migrator', output.yes),
    output.Column('note', 'Note'),
    *ALL[6:],
    output.Column('sighting', 'Also seen', sighting),
    output.Column('updated_at', 'Updated', output.moment),
)


class InstanceList(base.ListCommand):
    """List all instances, by name.

    Of an instance whose host is down the state is what the host told last, and says so.
    """

    columns = LIST
    long = ALL

    def add_arguments(self, parser):
        """Say which ones."""
        parser.add_argument('--host', type=arguments.host, help='only on this host')
        parser.add_argument('--state', choices=[str(state) for state in InstanceState], help='only in this state')

    def ask(self, parsed):
        """Ask for as many pages as there are."""
        filters = {name: getattr(parsed, name) for name in ('host', 'state') if getattr(parsed, name)}
        return pages(lambda limit, marker: self.api.instances(filters, limit, marker), 'uuid')


def add_instance(parser):
    """Name an instance."""
    parser.add_argument('instance', metavar='INSTANCE', type=arguments.instance, help='uuid or name')


class InstanceShow(base.ShowCommand):
    """Show one instance."""

    columns = SHOW

    def add_arguments(self, parser):
        """Name it."""
        add_instance(parser)

    def ask(self, parsed):
        """Ask for it."""
        return self.api.instance_show(parsed.instance)


class InstanceStart(waiting.InstanceWork):
    """Start an instance.

    Refused while other work or an outstanding cleanup names it, for a second copy of it might be running.
    """

    def add_arguments(self, parser):
        """Name it."""
        add_instance(parser)

    def begin(self, parsed):
        """Start it."""
        return self.api.instance_start(parsed.instance, request_id=parsed.request_id)


class InstanceStop(waiting.InstanceWork):
    """Shut an instance down, and cut its power if it does not go by itself."""

    def add_arguments(self, parser):
        """Name it, and say how patient to be."""
        add_instance(parser)
        parser.add_argument('--grace', type=int, default=60, metavar='SECONDS',
                            help=f'time to shut down by itself, 0 to {MAX_GRACE}; default: 60')

    def begin(self, parsed):
        """Stop it."""
        grace = arguments.bounded(parsed.grace, '--grace', 0, MAX_GRACE)
        return self.api.instance_stop(parsed.instance, request_id=parsed.request_id, timeout=grace)


class InstanceDelete(waiting.InstanceWork):
    """Delete a stopped instance, with the disks that were made for it."""

    def add_arguments(self, parser):
        """Name it."""
        add_instance(parser)

    def begin(self, parsed):
        """Delete it."""
        return self.api.instance_delete(parsed.instance, request_id=parsed.request_id)
