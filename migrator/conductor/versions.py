"""How new a request may be while old and new agents run side by side: no newer than what the oldest live agent speaks.

Each heartbeat announces the version of its agent. A request that is too new for one agent is refused by it and changes nothing, so
what is known here may lag behind by a moment.
"""
import threading

from oslo_log import log

from migrator.conductor.db import hosts
from migrator.rpc import contract
from migrator.states import AgentKind

LOG = log.getLogger(__name__)


class AgentVersions:
    """What all live agents of one kind understand."""

    def __init__(self, database, down_after, own=contract.COMPUTE_VERSION, kind=AgentKind.COMPUTE):
        """down_after: seconds without a heartbeat after which a host does not count. own: the version that this conductor speaks."""
        self.kind = kind
        self.database = database
        self.down_after = down_after
        self.own = own
        self._lowest = contract.first_of(own)       # until the agents have been looked up, nothing new is said
        self._lock = threading.Lock()

    def lowest(self):
        """Give the highest version that may be sent."""
        return self._lowest

    def refresh(self):
        """Look up what the live agents announced. One statement. Raises Unavailable."""
        announced = self.database.run(lambda tx: hosts.versions(tx, self.down_after, self.kind))
        self._set(lowest_of([self.own, *announced], self.own))

    def heard(self, version):
        """Take a heartbeat's announcement, which counts at once if it is older than what was known."""
        self._set(lowest_of([self._lowest, version], self.own))

    def _set(self, version):
        with self._lock:
            if version != self._lowest:
                LOG.info('requests to %s agents are of version %s from now on, it was %s', self.kind, version, self._lowest)
                self._lowest = version


def lowest_of(versions, own=contract.COMPUTE_VERSION):
    """Give the lowest of some versions. One that cannot be read, or is of another series than `own`, counts as the first of that. Pure."""
    first = contract.first_of(own)
    ours = [v if contract.is_version(v) and contract.first_of(v) == first else first for v in versions]
    return min(ours, key=contract.order)
