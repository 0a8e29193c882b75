"""What the heartbeats of volume agents teach: which backends there are, with their room, and how mirrors and copies get on.

A volume is never found or lost by a heartbeat: only requests and workflows make, move and remove the rows of volumes. What lies on an
array and in no row, the audit tells.
"""
from oslo_db import exception as db_exception
from oslo_log import log

from migrator import exceptions
from migrator.conductor.db import debts, hosts, ledger
from migrator.conductor.inventory import RACES, judged, looked_at
from migrator.rpc import facts
from migrator.states import AgentKind

LOG = log.getLogger(__name__)

KIND = AgentKind.VOLUME

#: What is answered where nothing is known of any copy.
NOTHING = {'ended': [], 'unknown': []}


class VolumeInventory:
    """Takes heartbeats of volume agents in."""

    def __init__(self, database, poll_interval=0.0, versions=None):
        """poll_interval: seconds after which an agent is asked for an operation that it did not tell of. versions: of KIND."""
        self.database = database
        self.quiet = poll_interval * 1000
        self.versions = versions

    def heartbeat(self, beat):
        """Record a heartbeat (volume_facts.VolumeHeartbeat). Late and doubled ones change nothing, nor do those of a process that has
        a successor. Each tells everything, so none is ever asked for again.

        Returns {'ended', 'unknown'}: lists of those of the migrations in `copies` that have ended, and of those that nobody knows (any
        more). Raises HostDoubled for the former process of two that both live (conductor.rivals).
        """
        if self.versions is not None:
            self.versions.heard(beat.rpc_version)
        counts, words = self._taken(beat)
        if words:
            raise exceptions.HostDoubled(words)
        if not counts:
            return dict(NOTHING)
        try:
            return self.database.run(lambda tx: self._look(tx, beat))
        except exceptions.Unavailable as error:
            LOG.warning('the progress of migrations of %s is not written down until its next heartbeat: %s', beat.host, error)
            return dict(NOTHING)

    def _look(self, tx, beat):
        if beat.progress:
            ledger.progress(tx, beat.host, beat.progress, self.quiet, KIND)
        return dict(zip(NOTHING, ledger.not_live(tx, beat.copies), strict=True)) if beat.copies else dict(NOTHING)

    def _taken(self, beat):
        """Write down all but the progress, and give what is `judged`. A row that another conductor made meanwhile is read again."""
        for _ in range(RACES):
            try:
                return self.database.run(lambda tx: self._take(tx, beat))
            except db_exception.DBDuplicateEntry as error:
                LOG.info('a heartbeat of the volume agent of %s is taken in again: %s', beat.host, error)
        return self.database.run(lambda tx: self._take(tx, beat))

    @staticmethod
    def _take(tx, beat):
        known = hosts.get_many(tx, [beat.host], KIND).get(beat.host)
        counts, words = judged(tx, beat, known, KIND)
        if not counts:
            return False, words
        hosts.beat(tx, known, beat, KIND, told={'backends': facts.to_wire(beat.backends), 'looked': seen(beat, known)})
        if known is not None and known.process_id != beat.process_id:
            ledger.wake_host(tx, beat.host, KIND)
            debts.wake_host(tx, beat.host, KIND)
        return True, None


def seen(beat, known):
    """Reckon by the database's clock when the arrays were looked at, rather too early than too late. Pure. known: see looked_at."""
    if known is None:
        return 0
    return looked_at(beat, known) if beat.looked else known.last_seen
