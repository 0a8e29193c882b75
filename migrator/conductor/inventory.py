"""What heartbeats teach the catalogue.

A host's list is evidence of what runs there, not of what is gone: a guest that is missing from it becomes `unknown` and keeps its
row. A locked guest is left alone, for its workflow knows better. A guest that moved without us is adopted only when one host says
that it runs there and the other one has said that it does not know it (design, section 2). Until then it is a sighting: stored with the
row, so that nobody starts, deletes or moves what runs elsewhere.
"""
import dataclasses
import types

from oslo_db import exception as db_exception
from oslo_log import log

from migrator import exceptions
from migrator.conductor import rivals
from migrator.conductor.db import catalogue, debts, hosts, ledger, volumes
from migrator.states import AgentKind, GuestState, InstanceState

LOG = log.getLogger(__name__)

#: Column values of a guest that no other host tells of.
NOWHERE_ELSE = {'sighted_host': '', 'sighted_state': ''}

#: Seconds of silence after which no message of a host is late any more: no broker and no conductor holds one back for so long.
LATE_SECONDS = 600

#: How often a heartbeat is taken in again because a row that it was to make was there by then.
RACES = 3

#: Milliseconds by which the reckoned time of a look may be late: a heartbeat's way takes less, or it changes nothing for one more.
MARGIN = 500


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a heartbeat means for the catalogue.

    insert, update: uuid -> column values. unknown: uuids. sighted: uuid -> the columns that tell of
    another host. odd: remarks for the log. missed: something could not be taken in yet, so it must
    be told again: a locked guest is not as the catalogue has it, or a guest runs here that another host has not let go of.
    """

    insert: dict
    update: dict
    unknown: list
    odd: list
    missed: bool
    sighted: dict = dataclasses.field(default_factory=dict)

    def uuids(self):
        """Name all guests whose rows change."""
        return {*self.insert, *self.update, *self.unknown, *self.sighted}

    def without(self, uuids):
        """Give the same without what concerns these guests."""
        if not uuids:
            return self
        insert, update, sighted = ({u: v for u, v in found.items() if u not in uuids} for found in (self.insert, self.update, self.sighted))
        return Changes(insert, update, [u for u in self.unknown if u not in uuids], self.odd, True, sighted)


class Inventory:
    """Takes heartbeats in."""

    def __init__(self, database, poll_interval=0.0, versions=None):
        """poll_interval: seconds after which an agent is asked for an operation that it did not tell of. versions: AgentVersions."""
        self.versions = versions
        self.database = database
        self.quiet = poll_interval * 1000

    def heartbeat(self, beat):
        """Record a heartbeat and what it tells. Returns {'resync': bool}: true asks for the whole inventory with the next one.

        Late and doubled heartbeats change nothing, nor do those of a process that has a successor. What a heartbeat tells of the
        progress of migrations is written on its own, so that it holds none of them while the inventory is compared.

        Raises HostDoubled for the former process of two that both live (conductor.rivals).
        """
        if self.versions is not None:
            self.versions.heard(beat.rpc_version)
        answer = self._taken(beat)
        if answer is None:
            return {'resync': False}
        if isinstance(answer, str):
            raise exceptions.HostDoubled(answer)
        if beat.progress:
            try:
                self.database.run(lambda tx: ledger.progress(tx, beat.host, beat.progress, self.quiet))
            except exceptions.Unavailable as error:
                LOG.warning('the progress of migrations of %s is not written down until its next heartbeat: %s', beat.host, error)
        return answer

    def _taken(self, beat):
        """Write down all but the progress. A guest's or the host's row that somebody else made meanwhile is read again."""
        for _ in range(RACES):
            try:
                return self.database.run(lambda tx: self._take(tx, beat))
            except db_exception.DBDuplicateEntry as error:      # a workflow made the guest, or another conductor the host's row
                LOG.info('a heartbeat of %s is taken in again: %s', beat.host, error)
        return self.database.run(lambda tx: self._take(tx, beat))

    def _take(self, tx, beat):
        """Give the answer; None if the heartbeat is late; words if another machine has the host's name, which is a reason to refuse it."""
        known = hosts.get_many(tx, [beat.host]).get(beat.host)
        counts, words = judged(tx, beat, known)
        if not counts:
            return words
        same = known is not None and known.process_id == beat.process_id
        hosts.beat(tx, known, beat)
        if known is not None and not same:
            ledger.wake_host(tx, beat.host)
            debts.wake_host(tx, beat.host)
        gap = not (beat.full or beat.complete) and (not same or beat.sequence != known.sequence + 1)
        missed = False if gap else self._learn(tx, beat, looked_at(beat, known))
        return {'resync': gap or missed}

    def _learn(self, tx, beat, looked):
        """Store what a heartbeat tells of guests. Returns whether some of it had to be left out.

        looked: when the host was looked at. What a workflow has written since is newer than the host's words.
        """
        guests = [g for g in beat.guests if g.state in catalogue.STATE]
        if not (guests or beat.gone or beat.full or beat.complete):
            return False
        gone = list(beat.gone)
        if beat.full or beat.complete:
            listed = {g.uuid for g in beat.guests}.union(beat.named)
            gone = [uuid for uuid in catalogue.unlisted(tx, beat.host, listed) if beat.covers(uuid)]
        rows = catalogue.several(tx, [g.uuid for g in guests] + gone)
        changes = compare(beat.host, guests, gone, rows)
        if changes.uuids():
            changes = changes.without(ledger.ended_since(tx, sorted(changes.uuids()), looked))
        for uuid, values in changes.insert.items():
            catalogue.insert(tx, uuid, values)
        for uuid, values in (*changes.update.items(), *changes.sighted.items()):
            catalogue.update(tx, uuid, **values)
        if changes.unknown:
            catalogue.mark_unknown(tx, changes.unknown)
        tell_migrations(tx, {**changes.insert, **changes.update}, rows)
        for remark in changes.odd:
            LOG.warning(remark)
        return changes.missed


def judged(tx, beat, known, kind=AgentKind.COMPUTE):
    """Say whether a heartbeat of an agent counts: (True, None); or (False, None) for a late one, which changes nothing; or (False, words)
    if another machine has the host's name, which is a reason to refuse it. known: the agent's row, which this transaction holds, or None.
    """
    if rivals.outlived(beat, known):
        LOG.warning('process %s of %s is its %s agent again: %s is not heard of any more', beat.process_id, beat.host, kind,
                    known.process_id)
        return True, None
    rival = {} if silent_for_long(known) else rivals.noted(beat, known)
    if not rival and not late(beat, known):
        return True, None
    words = ''
    if rival:       # a process that has a successor was heard of: remember it, until it is certain that both live
        hosts.note_rival(tx, beat.host, rival, kind)
        words = rivals.conflict(types.SimpleNamespace(**{**known._mapping, **rival}))
    if known.process_id != beat.process_id:
        LOG.warning('a heartbeat of process %s of %s came after those of its successor %s, and is left aside%s', beat.process_id, beat.host,
                    known.process_id, f': {words}' if words else '')
    return False, words or None


def tell_migrations(tx, learned, rows):
    """Write what is new in guests' notes into the timelines of the volumes that move under them.

    A note holds the last stall only; whoever asks why a migration took long wants all of them. learned: uuid -> column values. rows: what
    the catalogue had before. One statement for each 500 guests with news, and one for each event.
    """
    words = {uuid: f'instance {values["name"]} at {values["host"]} {values["note"]}' for uuid, values in learned.items()
             if values['note'] and (uuid not in rows or rows[uuid].note != values['note'])}
    for moving in volumes.arriving(tx, sorted(words)):
        ledger.note(tx, moving.id, moving.now, ledger.cursor_of(moving), 'guest_note', words[moving.guest])


def silent_for_long(known):
    """Whether a host is new, or was not heard of for so long that no message of it can be late. Pure."""
    return known is None or known.now - known.last_seen > LATE_SECONDS * 1000


def late(beat, known):
    """Whether a heartbeat was overtaken by one that was sent after it. Pure.

    beat: the heartbeat. known: the service row before it, with the time as `now`; None for a new host. Within a process the sequence
    tells, within a boot of the machine its clock. Beyond that a process that was replaced does not come back. All that counts for
    LATE_SECONDS only: what is heard after a longer silence is no straggler, but a machine that was set back to an earlier moment.
    """
    if silent_for_long(known):
        return False
    if known.process_id == beat.process_id:
        return beat.sequence <= known.sequence
    if known.host_boot_id and known.host_boot_id == beat.host_boot_id:
        return beat.monotonic < known.monotonic
    return beat.process_id != '' and beat.process_id == known.former_process_id


def looked_at(beat, known):
    """Reckon by the database's clock when a host was looked at, rather too early than too late.

    beat: the heartbeat. known: the service row before it, None for a new host; by its clock if it is the same process.
    """
    age = (beat.monotonic - beat.looked) * 1000 if beat.looked else 0
    moment = known.now - age if known is not None else 0
    if known is not None and known.process_id == beat.process_id:
        moment = min(moment, known.last_seen + (beat.monotonic - known.monotonic) * 1000 - age)
    return int(moment) - MARGIN


def compare(host, guests, gone, rows):
    """Decide what a host's words change. Pure.

    guests: what it lists. gone: uuids that it used to list. rows: the catalogue's rows of all of these, by uuid.
    """
    insert, update, odd, missed, sighted = {}, {}, [], False, {}
    for guest in guests:
        row, values = rows.get(guest.uuid), catalogue.values(guest, host)
        if row is None:
            insert[guest.uuid] = values
        elif row.locked_by:
            missed = missed or any(getattr(row, name) != value for name, value in values.items())
        elif row.host == host:
            if any(getattr(row, name) != value for name, value in values.items()):
                update[guest.uuid] = values
            if row.sighted_host == host:
                sighted[guest.uuid] = NOWHERE_ELSE
        elif guest.state is GuestState.RUNNING and row.state == InstanceState.UNKNOWN.value:
            odd.append(f'instance {guest.uuid} moved from {row.host} to {host} without migrator; it is adopted there')
            update[guest.uuid] = values | NOWHERE_ELSE
        else:
            # Paused or running there: the other host has not said yet that it went, or there are two copies. It is to be told of again.
            missed = missed or guest.state is not GuestState.OFF
            sighted.update(sighting(guest, host, row, odd))
    for uuid in gone:
        row = rows.get(uuid)
        if row is None:
            continue
        if row.locked_by:
            missed = missed or host in (row.host, row.sighted_host)
        elif row.sighted_host == host:
            sighted[uuid] = NOWHERE_ELSE
    unknown = [uuid for uuid in gone if uuid in rows and rows[uuid].host == host and not rows[uuid].locked_by]
    return Changes(insert, update, unknown, odd, missed, sighted)


def sighting(guest, host, row, odd):
    """Give what a guest that is not at its host changes: {} or {uuid: column values}. A definition that does not run is no sighting."""
    if guest.state is GuestState.OFF:
        return {guest.uuid: NOWHERE_ELSE} if row.sighted_host == host else {}
    seen = {'sighted_host': host, 'sighted_state': guest.state.value}
    if row.sighted_host not in ('', host) or (row.sighted_host, row.sighted_state) == (host, guest.state.value):
        return {}           # known already; or a third host has it, and one is enough to leave the guest alone
    odd.append(f'instance {guest.uuid} is said to be {guest.state.value} on {host}, the catalogue has it {row.state} on {row.host}')
    return {guest.uuid: seen}
