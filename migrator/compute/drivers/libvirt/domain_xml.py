"""Building, reading and rewriting libvirt's domain XML. Pure: text in, text or dataclasses out.

Only what a host decides is ever rewritten for another host (where consoles and graphics listen). What the guest can see - devices,
their addresses, CPU, machine - is passed on byte for byte in meaning, or it would break while it runs.
"""
import dataclasses
from urllib.parse import urlsplit

from lxml import etree

from migrator import exceptions
from migrator.rpc import facts

#: Marks guests that `instance create` made; libvirt keeps it through migrations.
NAMESPACE = 'https://migrator.invalid/xmlns/instance/1'

#: Never resolves entities, never reaches for the network: what is read may come from anyone who can define a domain.
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_blank_text=True)

_UNITS = {'b': 1, 'bytes': 1, 'KB': 1000, 'k': 1024, 'KiB': 1024, 'MB': 10 ** 6, 'M': 2 ** 20, 'MiB': 2 ** 20, 'GB': 10 ** 9,
          'G': 2 ** 30, 'GiB': 2 ** 30, 'TB': 10 ** 12, 'T': 2 ** 40, 'TiB': 2 ** 40}

#: How many volumes a new guest can be given while it runs.
SPARE_PORTS = 8

#: Devices that tie a guest to its host.
_TIED = {'hostdev': 'a device of the host', 'filesystem': 'a directory of the host', 'shmem': 'memory that is shared with others'}


@dataclasses.dataclass(frozen=True)
class Platform:
    """What new guests get from the host: domain type, emulator's path, architecture, machine type, CPU model ('' is host-model)."""

    domain_type: str
    emulator: str
    arch: str
    machine: str
    cpu_model: str


@dataclasses.dataclass(frozen=True)
class DiskSource:
    """One disk as the XML has it; `path` is a file, a device, or for `network` the export's URI; '' is an empty drive."""

    target: str
    type: str
    path: str
    format: str
    cache: str
    readonly: bool
    shareable: bool
    serial: str
    device: str
    mirrored: bool


@dataclasses.dataclass(frozen=True)
class Description:
    """What a domain's XML tells."""

    uuid: str
    name: str
    domain_type: str
    memory_mib: int
    vcpus: int
    arch: str
    machine: str
    cpu_mode: str
    cpu_model: str
    managed: bool
    disks: tuple[DiskSource, ...]
    boot_files: tuple[str, ...]
    passthrough: tuple[str, ...]


def parse(xml):
    """Parse XML text into an element. Raises DriverError when it is not XML."""
    try:
        return etree.fromstring(xml.encode(), _PARSER)
    except etree.XMLSyntaxError as error:
        raise exceptions.DriverError(f'the hypervisor gave XML that cannot be read: {error}') from None


# --- reading ---

def status(text):
    """Read libvirtd's own note of an active guest, as bytes; gives (uuid, id, process id), ('', 0, -1) if it is none."""
    try:
        root = etree.fromstring(text, _PARSER)
        domain = root.find('domain')
        return domain.findtext('uuid', ''), int(domain.get('id', 0)), int(root.get('pid', -1))
    except (etree.XMLSyntaxError, ValueError, AttributeError):
        return '', 0, -1


def describe(xml):
    """Read a domain's XML, live or inactive, into a Description."""
    root = parse(xml)
    kind = root.find('os/type')
    cpu = root.find('cpu')
    return Description(
        uuid=root.findtext('uuid', ''), name=root.findtext('name', ''), domain_type=root.get('type', ''),
        memory_mib=_bytes(root.find('memory')) // 2 ** 20, vcpus=_vcpus(root.find('vcpu')),
        arch='' if kind is None else kind.get('arch', ''), machine='' if kind is None else kind.get('machine', ''),
        cpu_mode='' if cpu is None else cpu.get('mode', 'custom'), cpu_model='' if cpu is None else cpu.findtext('model', ''),
        managed=root.find(f'metadata/{{{NAMESPACE}}}instance') is not None,
        disks=tuple(_disk(d) for d in root.findall('devices/disk')),
        boot_files=tuple(t for t in (root.findtext('os/kernel', ''), root.findtext('os/initrd', '')) if t),
        passthrough=tuple(_passthrough(root)))


def _bytes(element):
    return 0 if element is None else int(element.text) * _UNITS[element.get('unit', 'KiB')]


def _vcpus(element):
    return 0 if element is None else int(element.get('current', element.text))


def _disk(element):
    driver, target, kind = element.find('driver'), element.find('target'), element.get('type', 'file')
    driver = {} if driver is None else driver.attrib
    return DiskSource(
        target='' if target is None else target.get('dev', ''), type=kind, path=_source_path(kind, element.find('source')),
        format=driver.get('type', 'raw'), cache=driver.get('cache', ''), readonly=element.find('readonly') is not None,
        shareable=element.find('shareable') is not None, serial=element.findtext('serial', ''), device=element.get('device', 'disk'),
        mirrored=element.find('mirror') is not None)


def _source_path(kind, source):
    if source is None:
        return ''
    if kind != 'network':
        return source.get('file') or source.get('dev') or source.get('dir') or source.get('path') or source.get('volume') or ''
    host = source.find('host')
    where = '' if host is None else host.get('name') or host.get('socket') or ''
    where = f'[{where}]' if ':' in where else where
    port = '' if host is None or not host.get('port') else f':{host.get("port")}'
    protocol = source.get('protocol', '') + ('s' if source.get('tls') == 'yes' else '')
    return f'{protocol}://{where}{port}/{source.get("name", "")}'


def _passthrough(root):
    for tag, words in _TIED.items():
        for element in root.findall(f'devices/{tag}'):
            yield f'the guest uses {words} ({element.get("type") or element.get("name") or tag})'
    for element in root.findall('devices/interface'):
        if element.get('type') == 'hostdev':
            yield 'the guest uses a network device of the host'


# --- building ---

def build(spec, name, platform, disks, console):
    """Write the XML of a new guest.

    spec: InstanceSpec; name: unique on the host; platform: Platform; disks: pairs of NewDisk and its path ('' with a uri);
    console: path of the file that the serial console is appended to. Raises InvalidRequest for a volume that is no NBD export.
    """
    root = etree.Element('domain', type=platform.domain_type)
    _add(root, 'name', name)
    _add(root, 'uuid', spec.uuid)
    etree.SubElement(_add(root, 'metadata'), f'{{{NAMESPACE}}}instance', nsmap={'migrator': NAMESPACE})
    _add(root, 'memory', str(spec.memory_mib), unit='MiB')
    _add(root, 'vcpu', str(spec.vcpus))
    system = _add(root, 'os')
    _add(system, 'type', 'hvm', arch=platform.arch, machine=platform.machine)
    if spec.kernel:
        for tag, text in (('kernel', spec.kernel), ('initrd', spec.initrd), ('cmdline', spec.cmdline)):
            if text:
                _add(system, tag, text)
    else:
        _add(system, 'boot', dev='hd')
    features = _add(root, 'features')
    _add(features, 'acpi')
    if platform.cpu_model:
        _add(_add(root, 'cpu', mode='custom', match='exact', check='none'), 'model', platform.cpu_model, fallback='forbid')
    else:
        _add(root, 'cpu', mode='host-model')
    _add(root, 'clock', offset='utc')
    for event, action in (('on_poweroff', 'destroy'), ('on_reboot', 'restart'), ('on_crash', 'destroy')):
        _add(root, event, action)
    _devices(_add(root, 'devices'), platform, disks, console)
    return etree.tostring(root, encoding='unicode', pretty_print=True)


def _devices(devices, platform, disks, console):
    _add(devices, 'emulator', platform.emulator)
    for disk, path in disks:
        _new_disk(devices, disk, path)
    _add(devices, 'controller', type='usb', model='none')
    # On PCI Express each device needs a port that was there when the guest started: for the disks and the balloon, and for volumes to come.
    _add(devices, 'controller', type='pci', index='0', model='pcie-root')
    for _ in range(len(disks) + 1 + SPARE_PORTS):
        _add(devices, 'controller', type='pci', model='pcie-root-port')
    serial = _add(devices, 'serial', type='file')
    _add(serial, 'source', path=console, append='on')
    _add(serial, 'target', port='0')
    # With a balloon QEMU can tell how much the guest really uses; it costs nothing while nobody asks.
    _add(devices, 'memballoon', model='virtio')


def _new_disk(devices, disk, path):
    if disk.uri:
        devices.append(_volume(disk.target, disk.uri, disk.serial))
        return
    element = _add(devices, 'disk', type='file', device='disk')
    # The host's page cache must never hold what the other host has to see after the hand-over.
    _add(element, 'driver', name='qemu', type=disk.format, cache='none')
    _add(element, 'source', file=path)
    _add(element, 'target', dev=disk.target, bus='virtio')
    if disk.serial:
        _add(element, 'serial', disk.serial)


def _volume(target, uri, serial, read_only=False):
    """Make the element of a disk on an NBD export, which stops the guest on an I/O error instead of telling it. Raises InvalidRequest."""
    host, port, export = nbd_export(uri)
    element = etree.Element('disk', type='network', device='disk')
    _add(element, 'driver', name='qemu', type='raw', cache='none', error_policy='stop', rerror_policy='stop')
    source = _add(element, 'source', protocol='nbd', name=export, **({'tls': 'yes'} if uri.startswith('nbds:') else {}))
    _add(source, 'host', name=host, port=str(port))
    _add(element, 'target', dev=target, bus='virtio')
    if read_only:
        _add(element, 'readonly')
    if serial:
        _add(element, 'serial', serial)
    return element


def volume(target, uri, serial, read_only):
    """Write the XML of a disk that is to be attached: virtio, by an NBD export. Raises InvalidRequest for what is none."""
    return etree.tostring(_volume(target, uri, serial, read_only), encoding='unicode')


def export_uri(uri):
    """Write a URI of an NBD export as `describe` would, so that the two can be compared. Raises InvalidRequest."""
    return _disk(_volume('', uri, '')).path


def disk(xml, target):
    """Give the XML of the disk that has this target in a domain's XML, '' if there is none."""
    return next((etree.tostring(d, encoding='unicode') for d in parse(xml).findall('devices/disk') if _disk(d).target == target), '')


def nbd_export(uri):
    """Split nbd://host:port/export (nbds: with TLS) into host, port and export. Raises InvalidRequest."""
    try:
        parts = urlsplit(uri)
        port = parts.port or 10809
    except ValueError:
        raise exceptions.InvalidRequest(f'{uri!r:.200} is not nbd://host:port/export') from None
    if parts.scheme not in ('nbd', 'nbds') or not parts.hostname or len(parts.path) < 2 or parts.query or parts.fragment or parts.username:
        raise exceptions.InvalidRequest(f'{uri!r:.200} is not nbd://host:port/export')
    return parts.hostname, port, parts.path[1:]


def _add(parent, tag, text=None, **attributes):
    element = etree.SubElement(parent, tag, **attributes)
    try:
        element.text = text
    except ValueError:  # a control character or a NUL, which XML cannot carry
        raise exceptions.InvalidRequest(f'{tag}: {text!r:.80} has characters that are not allowed') from None
    return element


# --- rewriting ---

def for_destination(xml, listen_address):
    """Rewrite a migratable dump for another host: graphics and listening TCP consoles bind to `listen_address` ('' leaves them)."""
    root = parse(xml)
    if listen_address:
        for graphics in root.findall('devices/graphics'):
            _listen(graphics, listen_address)
        for tag in ('serial', 'console', 'channel', 'parallel'):
            for source in root.findall(f'devices/{tag}[@type="tcp"]/source[@mode="bind"]'):
                source.set('host', listen_address)
    return etree.tostring(root, encoding='unicode')


def _listen(graphics, address):
    if 'listen' in graphics.attrib:
        graphics.set('listen', address)
    for listen in graphics.findall('listen[@type="address"]'):
        listen.set('address', address)


def to_fact(disk, size, directory, backing, backing_format):
    """Make the wire's Disk of a DiskSource and of what the storage knows about it. Sizes in bytes."""
    kind = {'file': 'file', 'network': 'network'}.get(disk.type, 'block')
    return facts.Disk(target=disk.target, kind=kind, format=disk.format, size=size, directory=directory, path=disk.path, backing=backing,
                      backing_format=backing_format, cache=disk.cache, readonly=disk.readonly, shareable=disk.shareable,
                      serial=disk.serial)
