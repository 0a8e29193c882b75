"""What lies on the arrays that nobody answers for, and what is missing there? The part of the audit that is about volumes. Pure."""
import dataclasses
import re

from migrator.conductor import audit
from migrator.conductor.audit import Finding

#: What a volume agent calls a LUN: backend#pool/name, and an export of it: backend#pool/name:export.
LUN = re.compile(r'(?P<backend>[^#]+)#(?P<pool>[^/]+)/(?P<lun>[^:]+)(:(?P<export>.+))?\Z')
#: Names of LUNs that were made for volumes, and of exports: for whom they are is part of them.
UUID = r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
OF_VOLUME = re.compile(rf'volume-({UUID})(-[0-9a-f]{{8}})?\Z')
OF_EXPORT = re.compile(rf'(attachment|migration|copy)-({UUID})\Z')


@dataclasses.dataclass(frozen=True)
class Volume:
    """What the catalogue says of a volume. usable: it was made, and not given up."""

    name: str
    host: str
    backend: str
    pool: str
    lun: str
    usable: bool

    @property
    def place(self):
        """Where it is, as users write it."""
        return f'{self.host}@{self.backend}#{self.pool}'


@dataclasses.dataclass(frozen=True)
class Seen:
    """One trace of an array, read. volume_id: whose it is by the catalogue or by its name, '' if neither tells."""

    host: str
    trace: object
    backend: str
    pool: str
    lun: str
    export: str
    volume_id: str
    in_charge: bool                  # the catalogue has a volume in this very LUN

    @property
    def of_export(self):
        """Give (kind, id) of whom the export is for, ('', '') if its name does not tell."""
        found = OF_EXPORT.match(self.export)
        return found.groups() if found else ('', '')


def compare(known, traces, operations):
    """Name what is wrong at arrays.

    known: audit.Known. traces: host -> traces, of the volume agents that answered. operations: host -> ids of those that have not ended.
    """
    found, luns = [], {(v.host, v.backend, v.pool, v.lun): uuid for uuid, v in known.volumes.items()}
    for host, mine in sorted(traces.items()):
        seen = [read(luns, host, trace) for trace in mine if trace.kind in ('lun', 'export')]
        for one in seen:
            found += [_given_up(known, one, f) for f in (_export if one.export else _lun)(known, one)]
        for trace in mine:
            if trace.kind not in ('lun', 'export'):
                found += audit.RULES.get(trace.kind, audit.other)(known, host, trace)
        found += _missing(known, host, seen)
    for host, mine in sorted(operations.items()):
        found += [f for op_id in mine for f in audit.operation(known, host, op_id)]
    return tuple(found)


def read(luns, host, trace):
    """Read a trace of an array. luns: (host, backend, pool, name) of those in which the catalogue has volumes -> their ids."""
    found = LUN.match(trace.what)
    backend, pool, lun, export = (found[name] or '' for name in ('backend', 'pool', 'lun', 'export')) if found else ('', '', trace.what, '')
    here = luns.get((host, backend, pool, lun), '')
    named = OF_VOLUME.match(lun)
    return Seen(host, trace, backend, pool, lun, export, here or (named[1] if named else ''), bool(here))


def names(debt, seen):
    """Tell whether a debt is about a trace."""
    return debt.host == seen.host and debt.agent == 'volume' and (
        (seen.volume_id and debt.volume_id == seen.volume_id) or debt.migration_id in (seen.trace.migration_id, seen.of_export[1]))


def _excused(known, seen):
    ids = {seen.trace.migration_id, seen.of_export[1]} - {''}
    return seen.volume_id in known.busy_volumes or bool(ids & known.live) or any(names(d, seen) for d in known.debts + known.settled)


def _lun(known, seen):
    if seen.in_charge or _excused(known, seen):
        return
    volume = known.volumes.get(seen.volume_id)
    if volume is not None:
        yield Finding('leftover LUN', seen.host, seen.trace.what, f'of volume {volume.name or seen.volume_id}, which is at {volume.place}',
                      'remove it from the array, once it is certain that the volume is whole where the catalogue has it')
    else:
        yield Finding('LUN', seen.host, seen.trace.what, 'belongs to no volume of the catalogue',
                      'remove it from the array, if nobody needs what is in it')


def _export(known, seen):
    kind, identity = seen.of_export
    if _excused(known, seen) or (kind == 'attachment' and identity in known.attachments):
        return
    whose = f'for {kind} {identity}, which is not under way' if kind else 'for nobody that migrator knows of'
    yield Finding('export', seen.host, seen.trace.what, whose, 'end it at the array, once nobody is connected to it')


def _missing(known, host, seen):
    here = {one.volume_id for one in seen if one.in_charge}
    for uuid, volume in sorted(known.volumes.items()):
        if volume.host == host and volume.usable and uuid not in here and uuid not in known.busy_volumes:
            yield Finding('volume missing', host, uuid, f'the catalogue has {volume.name or uuid} at {volume.place} as {volume.lun}, '
                          'the array has no such LUN', 'find out who removed it; if its data is in no other LUN it is lost')


def _given_up(known, seen, finding):
    """Add to a finding that its cleanup was owed once, and who gave that up."""
    words = [f'{debt.action}, owed since migration {debt.migration_id}, was {debt.reason}' for debt in known.written_off
             if names(debt, seen)]
    return dataclasses.replace(finding, what='; '.join([finding.what, *words]))
