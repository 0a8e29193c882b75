"""How much room of a pool is spoken for: what accepted requests will take of it, and its array's last report does not show. Pure.

What an array reports is older than what was accepted since. A request for room is therefore written down in the transaction that accepts
it (db.reservations), and counts until the array was looked at after its end. Data that is on its way counts for what is still to come:
progress is told with, and looked at before, the room that is left.
"""
import dataclasses

#: What a step returns by which a migration's data is all there, whatever the last word of its progress was: (step, name).
DATA_IS_THERE = ('copy_volume', 'seconds')


@dataclasses.dataclass(frozen=True)
class Reservation:
    """What a workflow was promised. size: bytes. ended: by the database's clock, None while it is under way. progress, facts: of its
    row."""

    host: str
    backend: str
    pool: str
    size: int
    ended: int | None = None
    progress: dict = dataclasses.field(default_factory=dict)
    facts: dict = dataclasses.field(default_factory=dict)

    def outstanding(self, looked):
        """Give the bytes that it may still take of what was free when the array was looked at.

        looked: milliseconds of the database's clock.
        """
        if self.ended is not None:
            return self.size if self.ended > looked else 0
        step, name = DATA_IS_THERE
        if name in self.facts.get(step, ()):        # an interruption leaves the step's name, too
            return 0
        total, done = self.progress.get('total') or 0, self.progress.get('done') or 0
        return min(self.size, max(0, total - done)) if total else self.size


def promised(reservations, pools):
    """Sum up by pool what is spoken for: {(host, backend, pool): bytes}.

    pools: (host, backend, pool, the array's own identity or '', looked). Two agents that serve one array have its pools in common.
    """
    shared = {}
    for host, backend, pool, array, _ in pools:
        shared[host, backend, pool] = (array, pool) if array else (host, backend, pool)
    found = {}
    for host, backend, pool, _, looked in pools:
        mine = shared[host, backend, pool]
        found[host, backend, pool] = sum(each.outstanding(looked) for each in reservations
                                         if shared.get((each.host, each.backend, each.pool)) == mine)
    return found
