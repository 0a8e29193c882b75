"""The columns of a migration, in lists and as a single view."""
import textwrap

from migrator.cli import output
from migrator.cli.output import Column


def _statistic(name):
    return lambda view: view.get('statistics', {}).get(name, 0) or ''


def _elapsed(milliseconds):
    return '' if milliseconds == '' else output.duration(milliseconds)


def _bytes(count):
    return '' if count == '' else output.size(count)


def _debts(debts):
    return '\n'.join(output.plain(f'{debt["action"]} at {debt["host"]}: {debt["reason"]}') for debt in debts)


def _attestations(attestations):
    return '\n'.join(output.plain(f'{a["host"]} is off, said {a["user"] or "somebody"} at {output.moment(a["at"])}'
                                  + ('; it was heard of since' if a['heard_since'] else '')) for a in attestations or ())


def _if_set(flag):
    return 'yes' if flag else ''


def _why(view):
    return view['error'] or view['reason']


def reason(view):
    """Tell the reason, and for how long an answer has been missing, which is not part of it: it would be another one each second."""
    silent = view.get('silent_seconds', 0)
    return output.plain(view['reason']) + (f' (no answer for {output.ago(silent)} so far)' if silent else '')


def _folded(text):
    return textwrap.fill(output.plain(text), REASON_WIDTH)


#: Characters of a line of a reason in a table that has the reason by default and is to fit into 120.
REASON_WIDTH = 34

KIND = Column('kind', 'Kind', output.kind)
INSTANCE = Column('instance_name', 'Instance', of=output.guest)
ABOUT = Column('instance_name', 'About', of=output.guest)
VOLUME = Column('volume_name', 'Volume', of=output.guest)
FROM = Column('source_host', 'From', of=lambda view: output.ends(view)[0])
TO = Column('destination_host', 'To', of=lambda view: output.ends(view)[1])

#: All columns of a list; KIND comes second where kinds are mixed. What a table of 120 characters has no room for is there with --long.
LONG = (
    Column('id', 'ID'),
    INSTANCE,
    FROM,
    TO,
    Column('status', 'Status'),
    Column('progress', 'Progress', output.share, of=output.progress),
    Column('reason', 'Reason', of=_why),
    Column('created_at', 'Created', output.moment),
)
LONG_KINDS = (LONG[0], KIND, ABOUT, *LONG[2:])
LONG_VOLUMES = (LONG[0], VOLUME, *LONG[2:])
LIST = LONG[:6]
#: Names of pools are long: where it came from is there with --long.
LIST_VOLUMES = (LONG[0], VOLUME, *LONG[3:6])
LIST_KINDS = LONG_KINDS[:6]
DEBTS = Column('debts', 'Debts', of=lambda view: len(view['debts']))
#: What needs attention: why, and how many cleanups are owed, rather than from where to where.
ATTENTION = (LONG[0], ABOUT, LONG[4], DEBTS, Column('reason', 'Reason', _folded, of=_why))
LONG_ATTENTION = (*LONG_KINDS, DEBTS)

SHOW = (
    Column('id', 'ID'),
    KIND,
    Column('instance_name', 'Instance', of=lambda view: view['instance_name'] or view['instance_uuid']),
    Column('instance_uuid', 'Instance UUID'),
    Column('volume_name', 'Volume'),
    Column('volume_id', 'Volume ID'),
    FROM,
    TO,
    Column('way', 'Way'),
    Column('why', 'Way taken because'),
    Column('status', 'Status', told=output.status),
    Column('progress', 'Progress', output.share, of=output.progress),
    Column('step', 'Step'),
    Column('direction', 'Direction'),
    Column('reason', 'Reason', told=reason),
    Column('error', 'Error'),
    Column('abort_requested', 'Abort requested', _if_set),
    Column('no_return', 'Past the point of no return', _if_set),
    Column('needs_attention', 'Needs attention', _if_set),
    Column('debts', 'Cleanup owed', _debts),
    Column('attestations', 'Attested', _attestations),
    Column('downtime_ms', 'Downtime', _elapsed, of=_statistic('downtime_ms')),
    Column('elapsed_ms', 'Time of the hypervisor', _elapsed, of=_statistic('elapsed_ms')),
    Column('memory_processed', 'Memory copied', _bytes, of=_statistic('memory_processed')),
    Column('disk_processed', 'Disk copied', _bytes, of=_statistic('disk_processed')),
    Column('created_at', 'Created', output.moment),
    Column('updated_at', 'Updated', output.moment),
    Column('finished_at', 'Finished', output.moment),
    Column('request_id', 'Request ID'),
    Column('user', 'User'),
)
