"""What comes next? Every place where the migration of a volume may stand, crossed with what may happen to it."""
import dataclasses

from migrator.conductor import stimulus
from migrator.conductor.cursor import AbortCause, Cursor, Direction, Kind, Phase
from migrator.conductor.decide import next_action
from migrator.conductor.locate_volume import Answer, Said
from migrator.conductor.workflows.model import Commit
from migrator.conductor.workflows.volume_migration import VOLUME_MIGRATION
from migrator.states import Status
from tests import base
from tests.unit.conductor import positions
from tests.unit.conductor.positions import NOW, POLICY
from tests.unit.conductor.test_decide import read

SHORT = {'migrate_volume': 'src', 'export_volume': 'exp', 'migrate_volume_target': 'tgt', 'complete_migration_target': 'compl',
         'create_target_volume': 'make', 'copy_volume': 'copy', 'verify_volume': 'cmp', 'delete_source_volume': 'del',
         'cancel_migration_target': 'undoT', 'delete_target_volume': 'undoC', 'unexport_volume': 'undoE'}
FULL = {short: name for name, short in SHORT.items()}

#: What a step may have returned that is done, by the word for it in the table.
RETURNED = {'declined': {'moved': False}, 'moved': {'moved': True, 'migration_async': False},
            'async': {'moved': True, 'migration_async': True}}

#: A word is the step that is begun, by its short name; ~ the same operation once more. . ignored, ! refused, wait, op (it waits for an
#: operator), obs (both arrays are asked), COMP FAIL CANC (ended). +$ with a debt, +x its job is cancelled, +M +A +S what is committed
#: (moved, attachable, success).
TABLE = """
             due   declined moved   async   failed broken untouched unknown silent lost   busy abort
src |        poll  exp      del+M   del+M   obs    wait   FAIL      src~    wait   obs    wait wait+x
src, last |  poll  exp      del+M   del+M   obs    obs    obs       src~    wait   obs    wait wait+x
exp |        poll  tgt      tgt     tgt     undoE  wait   FAIL      exp~    wait   undoE  wait wait
tgt |        poll  make     del+M   compl+A obs    wait   undoE     tgt~    wait   obs    wait wait+x
tgt, last |  poll  make     del+M   compl+A obs    obs    obs       tgt~    wait   obs    wait wait+x
compl |      poll  del+S    del+S   del+S   wait   wait   wait      compl~  wait   op     wait !
compl, last | poll del+S    del+S   del+S   op     op     op        compl~  wait   op     wait !
compl, op |  poll  del+S    del+S   del+S   op     op     op        compl~  op     op     op   !
make |       poll  copy     copy    copy    undoC  wait   undoE     make~   wait   undoC  wait wait
copy |       poll  cmp      cmp     cmp     undoC  wait   undoC     copy~   wait   undoC  wait wait+x
cmp |        poll  del+M    del+M   del+M   undoC  wait   undoC     cmp~    wait   undoC  wait wait+x
del |        poll  COMP     COMP    COMP    wait   wait   wait      del~    wait   COMP+$ wait !
del, last |  poll  COMP     COMP    COMP    COMP+$ COMP+$ COMP+$    del~    wait   COMP+$ wait !
undoT |      poll  undoE    undoE   undoE   wait   wait   obs       undoT~  wait   undoE+$ wait !
undoC |      poll  undoE    undoE   undoE   wait   wait   wait      undoC~  wait   undoE+$ wait !
undoE |      poll  FAIL     FAIL    FAIL    wait   wait   wait      undoE~  wait   FAIL+$ wait !
undoE, last | poll FAIL     FAIL    FAIL    FAIL+$ FAIL+$ FAIL+$    undoE~  wait   FAIL+$ wait !
src, resting | src .        .       .       .      .      .         .       .      .      .    wait
compl, resting | compl .    .       .       .      .      .         .       .      .      .    !
src?     |   obs   .        .       .       .      .      .         .       .      .      .    wait+x
"""

#: With an abort pending. What is done by then is not committed, but for what the source array has moved.
ABORTED = """
             due   declined moved   async   failed broken untouched unknown silent lost   busy
src |        poll+x CANC    del+M   del+M   obs    wait   CANC      obs     wait+x obs    wait+x
exp |        poll  undoE    undoE   undoE   undoE  wait   CANC      undoE   wait   undoE  wait
tgt |        poll+x undoE   undoT   undoT   obs    wait   undoE     obs     wait+x obs    wait+x
make |       poll  undoC    undoC   undoC   undoC  wait   undoE     undoC   wait   undoC  wait
copy |       poll+x undoC   undoC   undoC   undoC  wait   undoC     undoC   wait+x undoC  wait+x
cmp |        poll+x undoC   undoC   undoC   undoC  wait   undoC     undoC   wait+x undoC  wait+x
src, resting | obs .        .       .       .      .      .         .       .      .      .
undoE |      poll  CANC     CANC    CANC    wait   wait   wait      undoE~  wait   CANC+$ wait
"""

#: What both arrays say: the volume is at the source, has moved, is being worked on; a host is silent, for long; they contradict each other.
OBSERVED = """
         source dest  work mute mute_long odd  odd_again
src? |   undoC  del+M wait wait op        wait op
tgt? |   undoT  del+M wait wait op        wait op
undoT? | wait   del+M wait wait op        wait op
"""

COMPLETE, ABSENT = Answer(Said.COMPLETE), Answer(Said.ABSENT)
SAID = {'source': (COMPLETE, ABSENT), 'dest': (ABSENT, COMPLETE), 'work': (Answer(Said.COMPLETE, job_active=True), ABSENT),
        'mute': (Answer(), ABSENT), 'mute_long': (Answer(), ABSENT), 'odd': (ABSENT, ABSENT), 'odd_again': (ABSENT, ABSENT)}
COMMITS = {Commit.NOTHING: '', Commit.MOVED: '+M', Commit.ATTACHABLE: '+A', Commit.SUCCESS: '+S'}


def begun_at(step):
    """Name the steps that may have left traces when a step is under way: what declined has left none."""
    taken = {'compl': ('export_volume', 'migrate_volume_target'), 'tgt': ('export_volume',), 'make': ('export_volume',),
             'copy': ('export_volume', 'create_target_volume'), 'cmp': ('export_volume', 'create_target_volume', 'copy_volume'),
             'del': ('export_volume', 'create_target_volume', 'copy_volume', 'verify_volume')}
    return (*taken.get(step, ()), FULL[step])


def cursor_at(position):
    """Give the cursor of a position by its name in a table."""
    name, _, how = position.partition(', ')
    step, asking = name.rstrip('?'), name.endswith('?')
    phase = Phase.OBSERVING if asking else Phase.RESTING if how == 'resting' else Phase.OPERATION
    late = {'attempt': 3, 'failures': 2} if how in ('last', 'op') else {'attempt': 1}
    if step.startswith('undo'):
        begun = {'undoT': ('export_volume', 'migrate_volume_target'), 'undoC': ('export_volume', 'create_target_volume', 'copy_volume'),
                 'undoE': ('export_volume',)}[step]
        return Cursor(Status.UNDOING, phase, FULL[step], Direction.UNDO, begun=begun, error='it broke', **late)
    status = Status.NEEDS_OPERATOR if how == 'op' else VOLUME_MIGRATION.step(FULL[step]).status
    return Cursor(status, phase, FULL[step], begun=begun_at(step), no_return=step in ('compl', 'del'), **late)


def decide(cursor, event):
    """Decide; the event by its name in a table."""
    known, now = {}, NOW
    if event in RETURNED:
        known, event = {cursor.step: RETURNED[event]}, 'done'
    if event in SAID:
        cursor = dataclasses.replace(cursor, silent_since=NOW - 60_000 if event == 'mute_long' else 0, failures=int(event == 'odd_again'))
        what = stimulus.Observed(*SAID[event])
    else:
        what = positions.EVENTS[event]
    if event == 'lost':
        cursor = dataclasses.replace(cursor, silent_since=now - 60_000)
    return next_action(VOLUME_MIGRATION, cursor, what, now, POLICY, known)


def short(action, cursor):
    """Write an action as a word of the tables."""
    if action.kind in (Kind.IGNORE, Kind.REFUSE):
        return '.' if action.kind is Kind.IGNORE else '!'
    if action.kind is Kind.END:
        word = action.cursor.status.value[:4].upper()
    elif action.kind is Kind.START:
        same = (action.cursor.step, action.cursor.attempt) == (cursor.step, cursor.attempt)
        word = SHORT[action.cursor.step] + ('~' if same else '')
    elif action.kind is Kind.OBSERVE:
        word = 'obs'
    else:
        word = 'op' if action.cursor.status is Status.NEEDS_OPERATOR and action.kind is Kind.WAIT else action.kind.value
    return word + COMMITS[action.commit] + ('+$' if action.debts else '') + ('+x' if action.abort_job else '')


class TableTest(base.TestCase):

    def check(self, table, **changes):
        wrong = []
        for (position, event), expected in read(table).items():
            cursor = dataclasses.replace(cursor_at(position), **changes)
            found = short(decide(cursor, event), cursor)
            if found != expected:
                wrong.append(f'{position} + {event}: {found}, expected {expected}')
        self.assertEqual([], wrong)

    def test_every_place_and_event(self):
        self.check(TABLE)
        self.assertLessEqual(set(SHORT.values()), {position.partition(',')[0] for position, _ in read(TABLE)})

    def test_with_an_abort_pending(self):
        self.check(ABORTED, abort=AbortCause.USER)

    def test_what_both_arrays_say(self):
        self.check(OBSERVED)

    def test_once_it_is_committed_nothing_is_undone(self):
        for position, event in read(TABLE):
            action = decide(cursor_at(position), event)
            if action.cursor.no_return:
                self.assertIs(Direction.FORWARD, action.cursor.direction, (position, event))
                self.assertNotIn(action.cursor.status, (Status.FAILED, Status.CANCELLED), (position, event))
            self.assertEqual(cursor_at(position).no_return or action.commit.final, action.cursor.no_return, (position, event))

    def test_every_decision_gives_its_reason(self):
        for position, event in [*read(TABLE), *read(OBSERVED)]:
            self.assertNotEqual('', decide(cursor_at(position), event).reason.strip(), (position, event))


class WordsTest(base.TestCase):

    def test_the_timeline_says_which_way_is_taken_and_why(self):
        checked = Cursor(Status.CHECKING, Phase.CALLING, 'check_can_migrate_volume_target')
        forced = next_action(VOLUME_MIGRATION, checked, stimulus.Checked(), NOW, POLICY, {'options': {'force_host_copy': True}})
        self.assertEqual('export_volume', forced.cursor.step)
        self.assertIn('migrate_volume is left out: a host copy was asked for', forced.reason)
        self.assertIn('the source array does not move it by itself', decide(cursor_at('src'), 'declined').reason)
        self.assertIn('the target array does not take it over', decide(cursor_at('tgt'), 'declined').reason)

    def test_an_operator_reads_what_failed(self):
        action = decide(cursor_at('compl, last'), 'failed')
        self.assertEqual((Status.NEEDS_OPERATOR, 'no luck'), (action.cursor.status, action.reason))

    def test_at_work_again_it_needs_no_operator(self):
        """Given a completion that an operator was called for, when it is found at work again, then he is not needed any more."""
        action = decide(cursor_at('compl, op'), 'alive')
        self.assertEqual((Kind.WAIT, Status.FINISHING), (action.kind, action.cursor.status))

    def test_what_declined_after_an_earlier_attempt_may_have_left_something(self):
        action = decide(cursor_at('src, last'), 'declined')
        self.assertIn('migrate_volume', action.cursor.begun)
        self.assertNotIn('migrate_volume', decide(cursor_at('src'), 'declined').cursor.begun)
