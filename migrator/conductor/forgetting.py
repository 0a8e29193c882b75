"""Forgetting a guest: its row goes when every host that could have it was asked now, and has neither the guest nor anything of it.

A guest that was undefined by hand stays in the catalogue as `unknown`, for a missing report proves nothing. This is the operator's way
out. Nothing is done at any host, and no word of an operator replaces a host's answer but that a silent host is off. Should the
guest be there after all, the heartbeat that tells of it brings it back.
"""
import uuid

from oslo_db import exception as db_exception
from oslo_log import log

from migrator import concurrency, exceptions
from migrator.conductor.db import catalogue, hosts, ledger, views, volumes

LOG = log.getLogger(__name__)

#: How many traces of a guest a refusal names.
MOST_NAMED = 3

#: How a host's trace is called, by kind; whatever is not here is called by its kind.
CALLED = {'domain': 'it', 'job': 'a migration job of it', 'file': 'files of it', 'note': 'a note of it',
          'temporary': 'a temporary file of it'}


class Forgetting:
    """Takes `instance_forget` requests."""

    def __init__(self, database, inspection, requests, settings):
        """inspection, requests: who asks hosts, and who says which are silent. settings: the [conductor] group of the configuration."""
        self.database = database
        self.inspection = inspection
        self.requests = requests
        self.settings = settings

    def forget(self, context, instance, dead=()):
        """Remove the row of a guest that is nowhere. Takes as long as the slowest host.

        instance: uuid or unique name. dead: names of silent hosts that the caller attests to be off. Every other host is asked; one that
        is disabled, silent, and not where the guest was seen last may be left out. Returns the guest as it was, with 'asked', 'attested'
        and 'not_asked': names of hosts. Asked twice, the second one finds no guest.

        Raises InstanceNotFound, HostNotFound; ResourceLocked and DebtOutstanding while work or a cleanup names the guest, VolumeInUse while
        it has volumes; HostUp for an attested host that is heard of, HostDown for a silent one that is not attested; NotPossible when a
        host has something of the guest, does not answer, or something changed meanwhile. Then nothing is changed.
        """
        dead = sorted(set(dead))
        guest, rows = self.database.run(lambda tx: self._read(tx, instance, dead))
        ask, not_asked = self._sorted(guest, rows, dead)
        asking = {row.host: concurrency.spawn(self.inspection.ask, context, row) for row in ask}
        refuse_found(guest, {host: thread.wait() for host, thread in asking.items()})
        try:
            self.database.run(lambda tx: self._remove(tx, context, guest, sorted(asking), dead))
        except db_exception.DBDuplicateEntry as error:
            raise exceptions.ResourceLocked(f'work on instance {called(guest)} began meanwhile') from error
        view = views.instance_view(guest, self.settings.host_down_after)
        return {**view, 'asked': sorted(asking), 'attested': dead, 'not_asked': not_asked}

    def _read(self, tx, instance, dead):
        """Give the guest, and the rows of all hosts."""
        guest = catalogue.get(tx, instance)
        refuse_busy(guest)
        refuse_attached(tx, guest)
        for host in dead:
            self.requests.off(tx, host)
        return guest, hosts.listing(tx)

    def _sorted(self, guest, rows, dead):
        """Give the rows of the hosts that are asked, and the names of those that are left out. Raises HostDown for the rest."""
        ask, silent, left_out = [], [], []
        for row in rows:
            if views.is_up(row, self.settings.host_down_after):
                ask.append(row)
            elif row.host not in dead:
                (silent if row.enabled or row.host in (guest.host, guest.sighted_host) else left_out).append(row)
        if silent:
            words = ', '.join(f'{row.host} (last heard of at {views.moment(row.last_seen)})' for row in silent)
            raise exceptions.HostDown(f'{words} cannot be asked for instance {called(guest)}; bring it back, or attest that it is off')
        return ask, [row.host for row in left_out]

    def _remove(self, tx, context, guest, asked, dead):
        """Remove the row if it is still the one that the hosts were asked about, and write down who did it."""
        now = catalogue.several(tx, [guest.uuid]).get(guest.uuid)
        if now is None:
            raise exceptions.InstanceNotFound(f'there is no instance {guest.uuid} any more')
        refuse_busy(now)
        refuse_attached(tx, now)
        if of_itself(now) != of_itself(guest):
            raise exceptions.NotPossible(f'what is known of instance {called(guest)} changed while the hosts were asked; try again')
        for host in dead:
            self.requests.off(tx, host)
        # The lock is taken though it goes with this transaction: a request that takes it at the same moment makes this one fail.
        own = str(uuid.uuid4())
        ledger.lock(tx, catalogue.resource(guest.uuid), own)
        catalogue.delete(tx, guest.uuid)
        ledger.unlock_all(tx, own)
        words = f'forgotten, last {guest.state} at {guest.host}; nothing of it is at {", ".join(asked) or "any host"}' \
            + (f'; attested to be off: {", ".join(dead)}' if dead else '')
        LOG.warning('instance %s (%s) was forgotten by %s, request %s: %s', guest.uuid, guest.name, context.user or 'somebody',
                    context.request_id, words)
        last = ledger.latest(tx, guest.uuid)
        if last:
            record = ledger.load(tx, last)
            ledger.note(tx, last, record.now, record.cursor, 'instance_forgotten', words, context.user, context.request_id)


def called(guest):
    """Name a guest for a person."""
    return guest.name or guest.uuid


def of_itself(guest):
    """Give what is known of a guest, without the time and the last heartbeat of its host that were read with it."""
    return {name: value for name, value in guest._mapping.items() if name not in ('now', 'host_seen')}


def refuse_busy(guest):
    """Raise ResourceLocked or DebtOutstanding for a guest that a workflow or a debt names."""
    if guest.locked_by:
        raise exceptions.ResourceLocked(f'instance {called(guest)} is being worked on (migration {guest.locked_by})')
    if guest.owed:
        raise exceptions.DebtOutstanding(f'a cleanup that names instance {called(guest)} is not done yet; `migrator debt list` has it')


def refuse_attached(tx, guest):
    """Raise VolumeInUse for a guest that has volumes by the catalogue: it would have them for ever. One statement."""
    if volumes.of_instance(tx, guest.uuid):
        raise exceptions.VolumeInUse(f'instance {called(guest)} has volumes; detach them first')


def refuse_found(guest, answers):
    """Raise NotPossible if a host has something of a guest, or has not answered. answers: host -> (traces, …), or why there is none."""
    unasked = [f'{host}: {why}' for host, why in sorted(answers.items()) if isinstance(why, str)]
    if unasked:
        raise exceptions.NotPossible(f'not every host could be asked for instance {called(guest)}: {"; ".join(unasked)}')
    found = [f'{host} has {CALLED.get(t.kind, t.kind)}' + (f' ({t.what})' if t.what else '')
             for host, (traces, _operations) in sorted(answers.items()) for t in traces if t.instance_uuid == guest.uuid]
    if found:
        more = f', and {len(found) - MOST_NAMED} more' if len(found) > MOST_NAMED else ''
        raise exceptions.NotPossible(f'instance {called(guest)} is not gone: {"; ".join(found[:MOST_NAMED])}{more}')
