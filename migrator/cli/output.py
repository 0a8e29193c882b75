"""Values for people: sizes, times and states in words; and columns that give machines the plain value and people the words."""
import dataclasses
import typing

from cliff import columns

from migrator.states import Status

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

#: What each status means, for people.
STATUS_WORDS = {
    Status.QUEUED: 'waits for a free place at its hosts',
    Status.CHECKING: 'source and destination are checked',
    Status.PREPARING: 'the host is prepared',
    Status.RUNNING: 'at work',
    Status.POST_COPY: 'runs at the destination and still fetches memory from the source',
    Status.WAITING: 'waits for an operator to complete it',
    Status.FINISHING: 'the guest runs at the destination; tidying up',
    Status.UNDOING: 'what was begun is undone',
    Status.NEEDS_OPERATOR: 'needs an operator; it is looked at again by itself',
    Status.COMPLETED: 'completed',
    Status.FAILED: 'failed',
    Status.CANCELLED: 'cancelled',
}

#: The same where a volume is moved and that is something else.
VOLUME_STATUS_WORDS = {Status.FINISHING: 'the volume is at the destination; what is left of the work is done'}

#: Kinds of work that move something.
MIGRATIONS = ('live_migration', 'volume_migration')

#: What the kinds of work are called.
KIND_WORDS = {'live_migration': 'live migration', 'instance_create': 'create and start', 'instance_define': 'create',
              'instance_start': 'start', 'instance_stop': 'stop', 'instance_delete': 'delete',
              'volume_migration': 'volume migration', 'volume_create': 'create volume', 'volume_extend': 'extend volume',
              'volume_delete': 'delete volume', 'volume_attach': 'attach volume', 'volume_detach': 'detach volume',
              'volume_cut_off': 'cut off volume'}


def plain(text):
    """Make text safe for a terminal: control characters that came from elsewhere are blanked."""
    return ''.join(c if c.isprintable() else ' ' for c in str(text))


def size(count):
    """Write bytes as B, KiB, MiB, GiB or TiB."""
    for unit, name in ((TIB, 'TiB'), (GIB, 'GiB'), (MIB, 'MiB'), (KIB, 'KiB')):
        if count >= unit:
            return f'{count // unit} {name}' if count % unit == 0 else f'{count / unit:.1f} {name}'
    return f'{count} B'


def mib(count):
    """Write a number of MiB."""
    return size(count * MIB)


def duration(milliseconds):
    """Write a duration: 97 ms, 2.5 s, 3 min 20 s, 2 h 5 min."""
    if milliseconds < 1000:
        return f'{milliseconds:.0f} ms'
    seconds = milliseconds / 1000
    if seconds < 60:
        return f'{seconds:.1f} s'
    if seconds < 3600:
        return f'{seconds // 60:.0f} min {seconds % 60:.0f} s'
    return f'{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min'


def ago(seconds):
    """Write for how long something lasts in its largest unit: 59 s, 3 min, 5 h, 2 days."""
    for unit, name in ((86400, 'day' if seconds < 2 * 86400 else 'days'), (3600, 'h'), (60, 'min')):
        if seconds >= unit:
            return f'{seconds // unit:.0f} {name}'
    return f'{seconds:.0f} s'


def moment(text, milliseconds=False):
    """Write a time of the API (ISO 8601, UTC) for people: 2026-01-31 12:00:00Z; '' stays ''."""
    words = plain(text).replace('T', ' ')
    if milliseconds or '.' not in words:
        return words
    return words[:words.index('.')] + ('Z' if words.endswith('Z') else '')


def yes(flag):
    """Write a flag."""
    return 'yes' if flag else 'no'


def of_volume(view):
    """Tell whether it is a volume that moves."""
    return view.get('kind') == 'volume_migration'


def status_words(view):
    """Say what the status of a migration means."""
    words = VOLUME_STATUS_WORDS if of_volume(view) else {}
    return words.get(view['status']) or STATUS_WORDS.get(view['status'], '')


def status(view):
    """Write the status of a migration with what it means."""
    words = status_words(view)
    return plain(view['status']) if words in ('', view['status']) else f'{view["status"]}: {words}'


def kind(value):
    """Write a kind of work."""
    return KIND_WORDS.get(value, plain(value))


def hypervisor(number):
    """Write libvirt's version number: 7002000 is 7.2.0."""
    return f'{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}' if number else ''


def job(view):
    """Give the figures of a migration's job under the names that a guest's has: a volume is a disk."""
    told = view['progress'] or {}
    if 'total' not in told:
        return told
    left = max(0, told['total'] - told.get('done', 0))
    return {'active': told.get('active', False), 'disk_total': told['total'], 'disk_processed': told.get('done', 0), 'disk_remaining': left,
            'rate': told.get('rate', 0)}


def copies(view):
    """Tell whether data is on its way: a volume may be in use at its destination meanwhile."""
    return view['status'] == Status.RUNNING or (of_volume(view) and view['status'] == Status.FINISHING)


def percent(view):
    """Tell how much of memory and disks is over, in whole percent, from a migration's view; None when nothing is known.

    Dirty memory is copied again, so this may go back.
    """
    if view['status'] == Status.COMPLETED:
        return 100
    found = job(view)
    total = found.get('memory_total', 0) + found.get('disk_total', 0)
    if not total:
        return None
    left = found.get('memory_remaining', 0) + found.get('disk_remaining', 0)
    return max(0, min(100, 100 * (total - left) // total))


def progress(view):
    """Give the percentage of a migration that is under way; '' where there is none."""
    share = percent(view) if view['kind'] in MIGRATIONS and not Status(view['status']).terminal else None
    return '' if share is None else share


def share(value):
    """Write a percentage; '' stays ''."""
    return '' if value == '' else f'{value} %'


class Cell(columns.FormattableColumn):
    """A value, and how people read it."""

    def __init__(self, value, words):
        super().__init__(value)
        self._words = words

    def human_readable(self):
        """Give the words."""
        return self._words


@dataclasses.dataclass(frozen=True)
class Column:
    """One column or field.

    key: in the view, and in JSON, YAML, CSV. heading: in tables. words: turns the value into what people read.
    of: takes the value from the view, where it is not simply there under its key. told: makes what people read from the whole view,
    where the value alone does not tell it.
    """

    key: str
    heading: str
    words: typing.Callable = plain
    of: typing.Callable | None = None
    told: typing.Callable | None = None

    def cell(self, view):
        """Give the cell of one view."""
        value = self.of(view) if self.of else view.get(self.key, '')
        return Cell(value, self.told(view) if self.told else self.words(value))


def guest(view):
    """Name what a migration is about for people: the instance, the volume, or the one with the other."""
    instance = view['instance_name'] or view['instance_uuid']
    volume = view.get('volume_name') or view.get('volume_id')
    return f'{volume} with {instance}' if volume and instance else volume or instance


def where(view, arrow):
    """Write from where to where."""
    here, there = ends(view)
    return here + (f' {arrow} {there}' if there else '')


def ends(view):
    """Give from where and to where: hosts, or the pools of a volume that moves."""
    return view.get('from') or view['source_host'], view.get('to') or view['destination_host']


def timeline(events):
    """Write the timeline of a migration as aligned lines."""
    if not events:
        return []
    rows = [(moment(e['at'], milliseconds=True), plain(e['status']), plain(e['step']), plain(e['what']),
             plain(e['reason']) + (f' ({plain(e["user"])})' if e['user'] else '')) for e in events]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ['  '.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
