"""migrator instance create: make a guest on a host, from a kernel and initrd or from the image on its first disk."""
import uuid

from migrator import exceptions
from migrator.cli import arguments, waiting
from migrator.rpc import facts

#: The namespace of uuids that follow from the ids of requests.
INSTANCES = uuid.UUID('5e0c8d5f-7a0b-4b55-9d0e-3f6c1d2a9b71')


class InstanceCreate(waiting.InstanceWork):
    """Create an instance on a host, and start it.

    Sizes are whole numbers, with K, M, G or T for powers of 1024. Paths are paths on the host. In --disk and --volume two commas
    stand for one in a value.
    """

    def add_arguments(self, parser):
        """Describe it."""
        parser.add_argument('name', metavar='NAME', help='name of the instance')
        parser.add_argument('--host', required=True, type=arguments.host, help='where to make it')
        parser.add_argument('--memory', metavar='MIB', default='128', help='MiB, or with a suffix; default: 128')
        parser.add_argument('--vcpus', type=int, default=1, metavar='N', help='virtual CPUs; default: 1')
        parser.add_argument('--kernel', default='', metavar='PATH', help='kernel to boot; default: boot from the first disk')
        parser.add_argument('--initrd', default='', metavar='PATH', help='initial RAM disk for the kernel')
        parser.add_argument('--cmdline', default='', metavar='TEXT', help='command line of the kernel')
        parser.add_argument('--disk', action='append', default=[], type=arguments.disk, dest='disks',
                            metavar='target=vda,size=1G[,format=qcow2|raw][,backing=PATH][,directory=DIR][,serial=TEXT]',
                            help='a disk to make; may be repeated. The size may be left out with a backing file')
        parser.add_argument('--volume', action='append', default=[], type=arguments.volume, dest='volumes',
                            metavar='target=vdb,uri=nbd://HOST:PORT/EXPORT[,serial=TEXT][,format=raw]',
                            help='a volume to connect, which live migration never copies; may be repeated')
        parser.add_argument('--uuid', type=lambda text: arguments.uuid(text, 'the uuid of an instance'), help='default: a new one')
        parser.add_argument('--no-start', action='store_true', help='do not start it')

    def begin(self, parsed):
        """Check the specification as the conductor will, and ask for the instance."""
        request_id = parsed.request_id or str(uuid.uuid4())
        return self.api.instance_create(parsed.host, specification(parsed, request_id), request_id=request_id, start=not parsed.no_start)


def specification(parsed, request_id):
    """Make a valid InstanceSpec of the arguments, as a dict. Raises InvalidRequest.

    A uuid that is not given follows from the request's id, so that the command can be repeated under that id.
    """
    for option in ('initrd', 'cmdline'):
        if getattr(parsed, option) and not parsed.kernel:
            raise exceptions.InvalidRequest(f'--{option} goes with --kernel')
    if not parsed.kernel and not parsed.disks and not parsed.volumes:
        raise exceptions.InvalidRequest('there is nothing to boot: give --kernel, --disk or --volume')
    spec = facts.from_wire(facts.InstanceSpec, {
        'uuid': parsed.uuid or str(uuid.uuid5(INSTANCES, request_id)), 'name': parsed.name, 'kernel': parsed.kernel,
        'initrd': parsed.initrd, 'cmdline': parsed.cmdline, 'vcpus': parsed.vcpus,
        'memory_mib': arguments.mib(parsed.memory, '--memory', 16, 2 ** 24), 'disks': parsed.disks + parsed.volumes}, 'instance')
    return facts.to_wire(spec)
