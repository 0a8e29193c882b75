"""Every line at which a daemon of a volume's migration may die, taken from the workflow's own table, so that a new step is a new case."""
import typing

from migrator.conductor.workflows import WORKFLOWS
from migrator.states import Status
from tests.faults.matrix import AGENT_POINTS, CONDUCTOR_POINTS

TABLE = WORKFLOWS['volume_migration']


class Course(typing.NamedTuple):
    """One way that a migration may go: between which backends, what fails on it, its operations, and those that undo it.

    fails: (method, action) of a simulated fault. observed: the step after which both arrays are asked. own: steps at which its agents do
    something else than on the courses before it.
    """

    name: str
    source: str
    target: str
    steps: tuple
    fails: tuple = ()
    observed: str = ''
    undos: tuple = ()
    own: tuple = ()

    @property
    def status(self):
        """How it ends."""
        return Status.FAILED if self.fails else Status.COMPLETED


#: Backends: `mover` moves volumes by itself, `plain` does not; `sync` and `async` take volumes over, `none` does not.
TAKEN = ('migrate_volume', 'export_volume', 'migrate_volume_target')
COPIED = ('create_target_volume', 'copy_volume', 'verify_volume')
COURSES = (
    Course('source', 'mover', 'none', ('migrate_volume', 'delete_source_volume')),
    Course('async', 'plain', 'async', (*TAKEN, 'complete_migration_target', 'delete_source_volume')),
    Course('sync', 'plain', 'sync', (*TAKEN, 'delete_source_volume')),
    Course('copy', 'plain', 'none', (*TAKEN, *COPIED, 'delete_source_volume')),
    Course('copy_fails', 'plain', 'none', (*TAKEN, *COPIED), ('verify', 'fail'),
           undos=('delete_target_volume', 'unexport_volume')),
    Course('driver_raises', 'plain', 'sync', TAKEN, ('migrate_volume_target', 'fail-after'), 'migrate_volume_target',
           ('cancel_migration_target', 'unexport_volume')))


#: The courses that real arrays take: all are storage daemons, of which `b` takes over while the volume is used, and `s` at once; or a copy
#: is asked for; or `a` moves it to another of its own pools.
ASYNC = Course('async', 'a', 'b', (*TAKEN, 'complete_migration_target', 'delete_source_volume'))
REAL_COURSES = (
    ASYNC,
    Course('copy', 'a', 'b', ('export_volume', *COPIED, 'delete_source_volume')),
    Course('pools', 'a', 'a', ('migrate_volume', 'delete_source_volume'), own=('migrate_volume',)),
    Course('sync', 'a', 's', (*TAKEN, 'delete_source_volume'), own=('migrate_volume_target',)))
#: Where the switch of a take-over may be interrupted, while the array holds its clients back; and whether the marker stands there.
SWITCH_POINTS = {'before-marker': False, 'behind-marker': True, 'switched': True}


def agent_cases(courses=COURSES):
    """Give (course, role, point, key) for the death of an agent; each line once, on the first course that comes to it."""
    yield from ((courses[0], step.on, 'called', step.name) for step in TABLE.checks)
    seen = set()
    for course in courses:
        if course.observed:
            yield from ((course, role, 'called', 'locate_volume') for role in type(TABLE.steps[0].on))
        for method in course.undos or course.steps:
            if method not in seen or method in course.own:
                seen.add(method)
                yield from ((course, TABLE.line(method).on, point, method) for point in AGENT_POINTS)


def conductor_keys(course):
    """Give the keys of the transitions of a course, in order."""
    yield f'call:{TABLE.checks[0].name}'
    yield from (f'start:{method}' for method in course.steps)
    if course.observed:
        yield f'observe:{course.observed}'
    yield from (f'start:{method}' for method in course.undos)
    yield f'end:{(course.undos or course.steps)[-1]}'


def conductor_cases(courses=COURSES):
    """Give (course, point, key) for the death of the conductor; each line once."""
    seen = set()
    for course in courses:
        for key in conductor_keys(course):
            for point in CONDUCTOR_POINTS:
                # The checks are begun right after the request's own commit, of which the caller has an answer or not.
                if (point, key) not in seen and not (key.startswith('call:') and point == 'before-commit'):
                    seen.add((point, key))
                    yield course, point, key


def array_cases(courses):
    """Give (course, step, array) for the death of an array while a step is under way; either array at each step."""
    yield from ((course, step, array) for course in courses for step in course.steps for array in sorted({course.source, course.target}))


def switch_cases(victims):
    """Give (point, victim) for a death in the midst of a switch."""
    yield from ((point, victim) for point in SWITCH_POINTS for victim in victims)
