"""May this guest move from here to there? Pure: both checks' facts in, a plan or the reasons against it out.

The two checks of seed 000 are independent requests that return facts; nothing is decided at either host, so that a dry run, a
retry and a real run decide alike.
"""
import dataclasses

from migrator.rpc import facts
from migrator.states import GuestState, PauseReason

#: Cache modes under which a shared disk is never served from a host's own page cache, so that both hosts see the same bytes.
SAFE_SHARED_CACHE = ('none', 'directsync')


@dataclasses.dataclass(frozen=True)
class Compatibility:
    """What came out: reasons against it in words (empty: possible), and the disks as the plan needs them."""

    reasons: tuple[str, ...]
    disks: tuple[facts.Disk, ...] = ()
    copy: tuple[str, ...] = ()

    @property
    def possible(self):
        """True when nothing speaks against it."""
        return not self.reasons


def compatible(source: facts.SourceFacts, destination: facts.DestinationFacts) -> Compatibility:
    """Compare what the guest needs with what the destination offers."""
    disks = tuple(d for d in source.disks if d.kind == 'file' and not d.readonly)
    copied = tuple(d for d in disks if not _shared(d, source, destination))
    reasons = [*source.obstacles, *_guest(source), *_hypervisor(source, destination), *_cpu(source, destination),
               *_room(source, destination, copied), *_disks(source, disks, copied, destination)]
    return Compatibility(tuple(reasons), disks, tuple(d.target for d in copied))


def _shared(disk, source, destination):
    """A directory is shared when both hosts read the same identity in it; a path alone proves nothing."""
    here, there = source.storage.get(disk.directory), destination.storage.get(disk.directory)
    return bool(here) and here == there


def _guest(source):
    if source.state not in (GuestState.RUNNING, GuestState.PAUSED):
        yield f'the guest is {source.state.value} at the source, not running'
    if source.reason is PauseReason.IO_ERROR:
        yield 'the guest stands still after an I/O error of a disk; it can be moved once it goes on'
    if source.job_active:
        yield 'a migration or another job of the guest is active at the source'


def _hypervisor(source, destination):
    if source.hypervisor_type != destination.hypervisor_type:
        yield f'the hypervisors differ: {source.hypervisor_type} and {destination.hypervisor_type}'
    if destination.hypervisor_version < source.hypervisor_version:
        yield f'the destination\'s hypervisor is older ({destination.hypervisor_version} < {source.hypervisor_version})'
    if source.arch != destination.arch:
        yield f'the architectures differ: {source.arch} and {destination.arch}'
    if source.machine and source.machine not in destination.machines:
        yield f'the destination does not offer the machine type {source.machine}'
    if source.domain_type and source.domain_type not in destination.domain_types:
        yield f'the destination does not offer guests of type {source.domain_type}'
    if destination.occupied:
        yield f'the destination is not free for the guest: {destination.occupied}'
    for path in destination.boot_files_missing:
        yield f'the guest boots from {path}, which the destination does not have'
    for words in destination.volumes_silent:
        yield f'asked by the destination, {words}'


def _cpu(source, destination):
    if source.cpu_mode in ('host-passthrough', 'maximum'):
        if source.cpu_model != destination.cpu_model:
            yield f'the guest has the CPU of its host ({source.cpu_model}); the destination\'s is {destination.cpu_model}'
    elif source.cpu_model and source.cpu_model not in destination.cpu_models:
        yield f'the destination cannot give the CPU model {source.cpu_model}'


def _room(source, destination, copied):
    if source.memory_mib > destination.memory_free_mib:
        yield f'the guest needs {source.memory_mib} MiB of memory; the destination has {destination.memory_free_mib} MiB free'
    for directory in sorted({d.directory for d in copied} & set(destination.storage_free)):
        need = sum(d.size for d in copied if d.directory == directory)
        free = destination.storage_free[directory]
        if need > free:
            yield f'disks of {need} bytes are to be copied into {directory}; the destination has {free} bytes free there'


def _disks(source, disks, copied, destination):
    for disk in source.disks:
        if disk.kind == 'block':
            yield f'disk {disk.target} is a block device of the source host'
    for disk in disks:
        if disk.directory not in destination.storage:
            yield f'disk {disk.target} lies in {disk.directory or disk.path}, which the destination does not have'
        elif disk in copied:
            if disk.path in destination.files_found:
                yield f'the destination has a file {disk.path} already, and it is not the same storage'
            if disk.shareable:
                yield f'disk {disk.target} is shared between guests and not reachable at the destination'
            if disk.backing and disk.backing not in destination.backing_found and not _backing_shared(disk, source, destination):
                yield f'the backing file {disk.backing} of disk {disk.target} is not at the destination'
        elif disk.path not in destination.files_found:
            yield f'disk {disk.target} is on shared storage, but the destination does not see {disk.path}'
        elif disk.cache not in SAFE_SHARED_CACHE:
            yield f'disk {disk.target} is on shared storage with cache mode {disk.cache or "default"}; none is needed'


def _backing_shared(disk, source, destination):
    for directory, identity in source.storage.items():
        if disk.backing.startswith(directory.rstrip('/') + '/') and destination.storage.get(directory) == identity:
            return True
    return False
