"""migrator volume …: what volumes there are; making, growing, attaching, detaching and deleting them."""
from migrator import exceptions
from migrator.cli import arguments, base, output, waiting
from migrator.cli.migration import pages
from migrator.rpc import volume_facts
from migrator.states import VolumeState


def who(attachments):
    """Name the instances that have it."""
    return ', '.join(output.plain(found['instance_name'] or found['instance_uuid']) for found in attachments)


def attached(attachments):
    """Describe attachments, one a line."""
    return '\n'.join(output.plain(
        f'{found["instance_name"] or found["instance_uuid"]} on {found["host"]}'
        + (f' as {found["target"]}' if found['target'] else '') + (', read-only' if found['read_only'] else '')
        + ('' if found['status'] == 'attached' else f' ({found["status"]})')) for found in attachments)


def moved(found):
    """Tell of the last migration: which way it took, and why."""
    if not found:
        return ''
    lines = [f'{found["id"]}: {found["status"]}', f'from {found["from"]} to {found["to"]}']
    if found.get('way'):
        lines += [f'by {found["way"]}', f'({found["why"]})' if found['why'] else '']
    return '\n'.join(output.plain(line) for line in lines if line)


ALL = (
    output.Column('name', 'Name'),
    output.Column('id', 'ID'),
    output.Column('size', 'Size', output.size),
    output.Column('type', 'Type'),
    output.Column('pool', 'Pool'),
    output.Column('status', 'Status'),
    output.Column('migration_status', 'Migration'),
    output.Column('attachments', 'Attached to', who),
    output.Column('multiattach', 'For several', output.yes),
    output.Column('locked_by', 'Locked by'),
    output.Column('debts', 'Debts'),
    output.Column('error', 'Error'),
    output.Column('created_at', 'Created', output.moment),
)

#: What fits into 120 characters; the id, too, for names may be long.
LIST = tuple(column for column in ALL if column.key in ('name', 'size', 'type', 'pool', 'status', 'migration_status', 'attachments'))

SHOW = (
    *ALL[:7],
    output.Column('migration', 'Last migration', moved),
    output.Column('attachments', 'Attached to', attached),
    *ALL[8:12],
    output.Column('lun', 'LUN'),
    ALL[12],
    output.Column('updated_at', 'Updated', output.moment),
)


def volume(text):
    """Read a volume's id or name."""
    return arguments.called(text, 'the volume')


def bytes_of(text, what):
    """Read a size in bytes, whole sectors; a suffix is allowed."""
    count = arguments.bounded(arguments.size(text), what, volume_facts.SECTOR, volume_facts.MAX_BYTES)
    if count % volume_facts.SECTOR:
        raise exceptions.InvalidRequest(f'{what} must be whole sectors of {volume_facts.SECTOR} bytes, not {count}')
    return count


def add_volume(parser):
    """Name a volume."""
    parser.add_argument('volume', metavar='VOLUME', type=volume, help='id or name')


class VolumeList(base.ListCommand):
    """List all volumes, by name."""

    columns = LIST
    long = ALL
    nothing = 'there are no volumes'

    def add_arguments(self, parser):
        """Say which ones."""
        parser.add_argument('--backend', metavar='HOST@BACKEND', help='only at this backend')
        parser.add_argument('--type', metavar='TYPE', help='only of this type')
        parser.add_argument('--status', choices=[str(status) for status in VolumeState], help='only in this status')

    def ask(self, parsed):
        """Ask for as many pages as there are."""
        filters = {name: getattr(parsed, name) for name in ('backend', 'type', 'status') if getattr(parsed, name)}
        if filters:
            self.nothing = 'there are no such volumes'
        return pages(lambda limit, marker: self.api.volumes(filters, limit, marker), 'id')


class VolumeShow(base.ShowCommand):
    """Show one volume, with whoever has it and the way that its last migration took."""

    columns = SHOW

    def add_arguments(self, parser):
        """Name it."""
        add_volume(parser)

    def ask(self, parsed):
        """Ask for it."""
        return self.api.volume_show(parsed.volume)


class VolumeCreate(waiting.InstanceWork):
    """Make a volume, which reads as zeros.

    Without --pool it is made where there is the most room, of the pools that serve the type.
    """

    def add_arguments(self, parser):
        """Describe it."""
        parser.add_argument('name', metavar='NAME', help='name of the volume')
        parser.add_argument('--size', required=True, metavar='BYTES', help='a whole number, with K, M, G or T for powers of 1024')
        parser.add_argument('--pool', default='', metavar='HOST@BACKEND[#POOL]', help='where to make it; default: where there is most room')
        parser.add_argument('--type', default='', metavar='TYPE', help='what kind of storage it needs; default: any')
        parser.add_argument('--multiattach', action='store_true',
                            help='it may be attached to several instances at once; such a volume cannot be migrated')

    def begin(self, parsed):
        """Make it."""
        return self.api.volume_create(parsed.name, bytes_of(parsed.size, '--size'), parsed.pool, parsed.type, parsed.multiattach,
                                      request_id=parsed.request_id)


class VolumeExtend(waiting.InstanceWork):
    """Make an available volume larger; what is new reads as zeros."""

    def add_arguments(self, parser):
        """Name it, and say how large."""
        add_volume(parser)
        parser.add_argument('size', metavar='BYTES', help='its new size in all, with K, M, G or T for powers of 1024')

    def begin(self, parsed):
        """Extend it."""
        return self.api.volume_extend(parsed.volume, bytes_of(parsed.size, 'the size'), request_id=parsed.request_id)


class VolumeDelete(waiting.InstanceWork):
    """Delete a volume that no instance has, with its data."""

    def add_arguments(self, parser):
        """Name it."""
        add_volume(parser)

    def begin(self, parsed):
        """Delete it."""
        return self.api.volume_delete(parsed.volume, request_id=parsed.request_id)


class VolumeAttach(waiting.InstanceWork):
    """Give an instance a volume as a disk, at once if it runs, and at its later starts.

    The disk's serial number is the volume's id. While a volume is being migrated it can be attached from the moment when its migration
    status is migrating_attachable.
    """

    def add_arguments(self, parser):
        """Name both, and the disk."""
        add_volume(parser)
        parser.add_argument('instance', metavar='INSTANCE', type=arguments.instance, help='uuid or name')
        parser.add_argument('--target', default='', metavar='DISK', help="the disk's name such as vdb; default: the first that is free")
        parser.add_argument('--read-only', action='store_true', help='the instance may only read it')

    def begin(self, parsed):
        """Attach it."""
        return self.api.volume_attach(parsed.volume, parsed.instance, {'target': parsed.target, 'read_only': parsed.read_only},
                                      request_id=parsed.request_id)


class VolumeDetach(waiting.InstanceWork):
    """Take a volume from an instance, which must let go of the disk.

    For an instance whose host is off and cannot answer, --assert-dead says so: the host is not asked, and whoever is still connected is cut
    off. Say it only of a host whose power you know to be cut. Should it come back with the instance, take the disk from the
    instance by hand.
    """

    def add_arguments(self, parser):
        """Name both."""
        add_volume(parser)
        parser.add_argument('instance', metavar='INSTANCE', type=arguments.instance, help='uuid or name')

        parser.add_argument('--assert-dead', action='store_true', help="you know that the instance's host is off; recorded with your name")

    def begin(self, parsed):
        """Detach it."""
        return self.api.volume_detach(parsed.volume, parsed.instance, {'assert_dead': parsed.assert_dead}, request_id=parsed.request_id)
