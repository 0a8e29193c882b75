"""What libvirt says that a host can do, read from its capabilities XML. Pure but for `can_use_kvm`, which only looks at permissions."""
import dataclasses
import os

from migrator import exceptions
from migrator.compute.drivers.libvirt import domain_xml

#: The model that QEMU gives without KVM, on every x86 host alike, so that guests under TCG can go anywhere.
TCG_MODEL = 'qemu64'
_PREFERRED_MACHINES = ('q35', 'virt')


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """The host's architecture and CPU, and what guests of that architecture can be given."""

    arch: str
    cpu_model: str
    emulator: str
    machines: tuple[str, ...]
    domain_types: tuple[str, ...]


def read(xml):
    """Read virConnectGetCapabilities. Raises DriverError if guests of the host's own architecture cannot be run."""
    root = domain_xml.parse(xml)
    arch = root.findtext('host/cpu/arch', '')
    guest = root.find(f'guest/arch[@name="{arch}"]')
    if guest is None:
        raise exceptions.DriverError(f"libvirt cannot run guests of the host's own architecture {arch}")
    machines = {name for m in guest.findall('machine') for name in (m.text, m.get('canonical')) if name}
    for domain in guest.findall('domain'):
        machines |= {name for m in domain.findall('machine') for name in (m.text, m.get('canonical')) if name}
    return Capabilities(arch, root.findtext('host/cpu/model', ''), guest.findtext('emulator', ''), tuple(sorted(machines)),
                        tuple(sorted(d.get('type', '') for d in guest.findall('domain'))))


def cpu_models(xml):
    """Read from virConnectGetDomainCapabilities which CPU models guests can be given, that of host-model included."""
    root = domain_xml.parse(xml)
    usable = {m.text for m in root.findall('cpu/mode[@name="custom"]/model') if m.get('usable') != 'no'}
    host_model = root.findtext('cpu/mode[@name="host-model"][@supported="yes"]/model', '')
    return tuple(sorted(usable | ({host_model} - {''})))


def can_use_kvm():
    """True when this process may use KVM; the device is not opened."""
    return os.access('/dev/kvm', os.R_OK | os.W_OK)


def platform(found, virt_type, cpu_model, kvm_usable):
    """Choose what new guests get.

    virt_type and cpu_model: the options of those names. kvm_usable: called only if the choice depends on it. Raises DriverError when
    libvirt does not offer the configured type.
    """
    if virt_type == 'auto':
        virt_type = 'kvm' if 'kvm' in found.domain_types and kvm_usable() else 'qemu'
    if virt_type not in found.domain_types:
        raise exceptions.DriverError(f'libvirt offers no guests of type {virt_type} here, only {", ".join(found.domain_types)}')
    machine = next((m for m in _PREFERRED_MACHINES if m in found.machines), '')
    if not machine:
        raise exceptions.DriverError(f'the emulator offers none of the machine types {", ".join(_PREFERRED_MACHINES)}')
    return domain_xml.Platform(virt_type, found.emulator, found.arch, machine, cpu_model or (TCG_MODEL if virt_type == 'qemu' else ''))
