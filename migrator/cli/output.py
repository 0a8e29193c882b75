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

#: What the kinds of work are called.
KIND_WORDS = {'live_migration': 'live migration', 'instance_create': 'create and start', 'instance_define': 'create',
              'instance_start': 'start', 'instance_stop': 'stop', 'instance_delete': 'delete'}


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


def status(value):
    """Write a status with what it means."""
    words = STATUS_WORDS.get(value, '')
    return plain(value) if words in ('', value) else f'{value}: {words}'


def kind(value):
    """Write a kind of work."""
    return KIND_WORDS.get(value, plain(value))


def hypervisor(number):
    """Write libvirt's version number: 7002000 is 7.2.0."""
    return f'{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}' if number else ''


def percent(view):
    """Tell how much of memory and disks is over, in whole percent, from a migration's view; None when nothing is known.

    Dirty memory is copied again, so this may go back.
    """
    if view['status'] == Status.COMPLETED:
        return 100
    job = view['progress']
    total = job.get('memory_total', 0) + job.get('disk_total', 0)
    if not total:
        return None
    left = job.get('memory_remaining', 0) + job.get('disk_remaining', 0)
    return max(0, min(100, 100 * (total - left) // total))


def progress(view):
    """Give the percentage of a live migration that is under way; '' where there is none."""
    share = percent(view) if view['kind'] == 'live_migration' and not Status(view['status']).terminal else None
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
    """Name the instance of a migration for people: by name, or by uuid if it has none."""
    return view['instance_name'] or view['instance_uuid']


def timeline(events):
    """Write the timeline of a migration as aligned lines."""
    if not events:
        return []
    rows = [(moment(e['at'], milliseconds=True), plain(e['status']), plain(e['step']), plain(e['what']),
             plain(e['reason']) + (f' ({plain(e["user"])})' if e['user'] else '')) for e in events]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ['  '.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
