"""What lies on the hosts that nobody answers for? Compares what agents have found with what the database knows. Pure.

What a workflow is at work on, or a debt names, is no finding. Each finding says in words what is where, and what to do.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that should not be. kind: in a word. host: '' for what is wrong in the database alone. resource: uuid, path or id."""

    kind: str
    host: str
    resource: str
    what: str
    todo: str


@dataclasses.dataclass(frozen=True)
class Instance:
    """What the catalogue says of a guest."""

    name: str
    host: str


@dataclasses.dataclass(frozen=True)
class Owed:
    """An open debt."""

    id: str
    host: str
    instance_uuid: str
    migration_id: str
    action: str
    reason: str
    refused: bool
    agent: str = 'compute'
    volume_id: str = ''


@dataclasses.dataclass(frozen=True)
class Lock:
    """A lock, with the status of the migration that holds it; '' if there is no such migration."""

    resource: str
    migration_id: str
    status: str
    live: bool


@dataclasses.dataclass(frozen=True)
class Known:
    """What the database knows.

    instances: by uuid. busy: uuids of guests that a workflow was at work on during the audit. live: ids of these workflows. debts: those
    that will be paid. settled: those that ceased to be owed during the audit, for a host may have answered before. written_off: those that
    will not be paid, so that what they were about is a finding. locks: all. storage: host -> identities of the storage that it has.
    places: agent -> (places that are taken, migrations that hold one). doubled: agent -> in words, which two processes call themselves so.
    volumes: audit_volumes.Volume by id. attachments: ids. busy_volumes: as busy, of volumes.
    """

    instances: dict = dataclasses.field(default_factory=dict)
    busy: frozenset = frozenset()
    live: frozenset = frozenset()
    debts: tuple = ()
    settled: tuple = ()
    written_off: tuple = ()
    locks: tuple = ()
    storage: dict = dataclasses.field(default_factory=dict)
    places: dict = dataclasses.field(default_factory=dict)
    doubled: dict = dataclasses.field(default_factory=dict)
    volumes: dict = dataclasses.field(default_factory=dict)
    attachments: frozenset = frozenset()
    busy_volumes: frozenset = frozenset()

    def owes(self, host, trace):
        """Tell whether a debt names a trace: one of this host, or of one that has the same storage."""
        return any(self.names(debt, host, trace) for debt in self.debts + self.settled)

    def names(self, debt, host, trace):
        """Tell whether a debt is about a trace."""
        about_it = trace.instance_uuid and debt.instance_uuid == trace.instance_uuid
        return (about_it or debt.migration_id == trace.migration_id) \
            and (debt.host == host or trace.storage in self.storage.get(debt.host, ()))


def confirmed(before, after, look):
    """Name what is wrong by both readings of the database: what became so, or ceased to be so, while the hosts were asked is none.

    before, after: Known; what was at work or owed in the first one counts as such in the second. look: names what is wrong by a Known.
    """
    at_first = {(f.kind, f.resource) for f in look(before)}
    return tuple(f for f in look(after) if (f.kind, f.resource) in at_first)


def compare(known, traces, operations):
    """Name what is wrong. traces: host -> traces, of the hosts that answered. operations: host -> ids of operations that have not ended."""
    twice = _twice(known, traces)
    found = list(twice)
    doubled = {f.resource for f in twice}
    for host, mine in sorted(traces.items()):
        for trace in mine:
            if not (trace.kind == 'domain' and trace.instance_uuid in doubled):
                found += [_given_up(known, host, trace, f) for f in RULES.get(trace.kind, other)(known, host, trace)]
        found += _missing(known, host, mine)
    for host, mine in sorted(operations.items()):
        found += [f for op_id in mine for f in operation(known, host, op_id)]
    found += [f for lock in known.locks for f in _lock(lock)]
    found += [_refused(debt) for debt in known.debts if debt.refused]
    found += [f for host in sorted(known.places) for f in _places(host, *known.places[host])]
    found += [Finding('two agents', host, host, words, 'correct `host` in the configuration of the wrong one, and restart it')
              for host, words in sorted(known.doubled.items())]
    once = {}
    for finding in found:       # shared storage is seen by each of its hosts
        once.setdefault((finding.kind, finding.resource, finding.what), finding)
    return tuple(once.values())


def _given_up(known, host, trace, finding):
    """Add to a finding that its cleanup was owed once, and who gave that up."""
    words = [f'{debt.action}, owed since migration {debt.migration_id}, was {debt.reason}' for debt in known.written_off
             if known.names(debt, host, trace)]
    return dataclasses.replace(finding, what='; '.join([finding.what, *words]))


def _twice(known, traces):
    running = {}
    for host, mine in sorted(traces.items()):
        for trace in mine:
            if trace.kind == 'domain' and trace.state == 'running' and trace.instance_uuid not in known.busy:
                running.setdefault(trace.instance_uuid, []).append(host)
    return [Finding('two copies running', ', '.join(hosts), uuid, f'the guest runs at {" and ".join(hosts)}',
                    'find out which one is the guest, and cut the power of the other one at its host') for uuid, hosts in running.items()
            if len(hosts) > 1]


def _excused(known, host, trace):
    return trace.instance_uuid in known.busy or trace.migration_id in known.live or known.owes(host, trace)


def _domain(known, host, trace):
    guest = known.instances.get(trace.instance_uuid)
    if _excused(known, host, trace):
        return
    if trace.state == 'incoming':
        yield Finding('leftover domain', host, trace.instance_uuid, f'{trace.what} is being received here, by no migration',
                      'undefine and destroy it at this host')
    elif guest is not None and guest.host != host:      # one that is in no catalogue at all is taken in with the next heartbeat
        yield Finding('leftover domain', host, trace.instance_uuid,
                      f'{trace.what} is {trace.state} here; the catalogue has it at {guest.host}',
                      'make sure that the guest is where the catalogue has it, then undefine it at this host')


def _job(known, host, trace):
    if not _excused(known, host, trace):
        yield Finding('job', host, trace.instance_uuid, 'a migration job is active that belongs to no migration of migrator',
                      'wait for its end, or abort it at this host with virsh domjobabort')


def _file(known, host, trace):
    if _excused(known, host, trace):
        return
    guest = known.instances.get(trace.instance_uuid)
    if trace.migration_id:
        yield Finding('file', host, trace.what, f'made by migration {trace.migration_id}, which is not under way',
                      'remove it, once it is certain that no guest uses it')
    elif guest is None:
        yield Finding('file', host, trace.what, 'belongs to no guest of the catalogue', 'remove it, if nobody needs what is in it')
    elif guest.host != host and trace.storage not in known.storage.get(guest.host, ()):
        yield Finding('file', host, trace.what, f'of guest {guest.name or trace.instance_uuid}, which is at {guest.host}',
                      'remove it, once it is certain that the guest runs from its own disks there')
    elif trace.host and trace.host != guest.host:
        yield Finding('file', host, trace.what, f'its marker names {trace.host}, the guest is at {guest.host}',
                      'write the name of the host that has the guest into the marker')


def _note(known, host, trace):
    if not _excused(known, host, trace):
        yield Finding('note', host, trace.what, f'of migration {trace.migration_id or "unknown"}, which is not under way', 'remove it')


def _temporary(known, host, trace):
    if not _excused(known, host, trace):
        yield Finding('temporary file', host, trace.what, 'stands for a file that was being made, and nothing that is under way makes it',
                      'remove it: no guest uses it')


def _report(known, host, trace):
    if not _excused(known, host, trace):
        yield Finding('report', host, trace.what, f'this operation of migration {trace.migration_id} has ended ({trace.state}), and no '
                      'conductor has acknowledged that', 'look into the logs for why not; the restarted agent tells it again')


def other(known, host, trace):
    """Judge what another kind of agent has: it is somebody's, or it is left over."""
    if not _excused(known, host, trace):
        yield Finding(trace.kind, host, trace.what or trace.instance_uuid, 'no workflow and no debt names it', 'remove it')


#: What is said of each kind of trace: (known, host, trace) -> findings. Kinds that are not here go by `other`.
RULES = {'domain': _domain, 'job': _job, 'file': _file, 'note': _note, 'temporary': _temporary, 'report': _report}


def _missing(known, host, traces):
    here = {trace.instance_uuid for trace in traces if trace.kind == 'domain'}
    for uuid, guest in sorted(known.instances.items()):
        if guest.host == host and uuid not in here and uuid not in known.busy:
            yield Finding('guest missing', host, uuid, f'the catalogue has {guest.name or uuid} here, the hypervisor does not know it',
                          'find it at another host, or define it again from its disks')


def operation(known, host, op_id):
    """Judge an operation that has not ended."""
    owner = op_id.partition('/')[0]
    if owner not in known.live and owner not in {debt.id for debt in known.debts + known.settled}:
        yield Finding('operation', host, op_id, 'the agent is at work on it, and no workflow and no debt has asked for it',
                      'restart the agent of this host if it does not end')


def _lock(lock):
    if not lock.live:
        holder = f'has ended: {lock.status}' if lock.status else 'does not exist'
        yield Finding('lock', '', lock.resource, f'held by migration {lock.migration_id}, which {holder}',
                      'this is a defect of migrator; delete the row of the lock, and report it')


def _places(host, taken, held):
    if taken != held:
        yield Finding('places', host, host, f'{taken} places for migrations are counted as taken, {held} migrations hold one',
                      f'this is a defect of migrator; set `places` of this agent to {held} in the table `service`, and report it')


def _refused(debt):
    what = f'{debt.action}: {debt.reason}'
    if debt.agent == 'volume':
        return Finding('debt refused', debt.host, debt.volume_id, what,
                       'look who uses the LUN; when nobody does, the debt is paid by itself')
    return Finding('debt refused', debt.host, debt.instance_uuid, what,
                   'look where the guest is; when only one copy is left, the debt is paid by itself')
