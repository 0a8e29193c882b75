"""Every line at which a daemon of a live migration may die, taken from the workflow's own table, so that a new step is a new case."""
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.model import Role

TABLE = WORKFLOWS['live_migration']
AGENT_POINTS = ('received', 'accepted', 'begun', 'done', 'recorded', 'reported')
CONDUCTOR_POINTS = ('before-commit', 'after-commit', 'after-send')

#: How a case goes: the migration succeeds, or the hypervisor's call fails and it is undone.
SUCCEEDS, FAILS = 'succeeds', 'fails'


def agent_cases():
    """Give (course, role, point, key) for the death of an agent."""
    for step in TABLE.checks:
        yield SUCCEEDS, step.on, 'called', step.name
    for step in TABLE.operations:
        for point in AGENT_POINTS:
            yield SUCCEEDS, step.on, point, step.name
    yield SUCCEEDS, Role.DESTINATION, 'called', 'locate_instance'
    yield FAILS, Role.SOURCE, 'called', 'locate_instance'
    for method in TABLE.undo_order:
        for point in AGENT_POINTS:
            yield FAILS, TABLE.step(method).undo.on, point, method


def conductor_keys(course):
    """Give the keys of the transitions of a course, in order."""
    yield f'call:{TABLE.checks[0].name}'
    for step in TABLE.operations:
        yield f'start:{step.name}'
        if step.observe:
            yield f'observe:{step.name}'
            if course == FAILS:
                break
    last = TABLE.operations[-1].name
    if course == FAILS:
        for method in TABLE.undo_order:
            yield f'start:{method}'
        last = TABLE.undo_order[-1]
    yield f'end:{last}'


def conductor_cases():
    """Give (course, point, key) for the death of the conductor."""
    seen = set()
    for course in (SUCCEEDS, FAILS):
        for key in conductor_keys(course):
            for point in CONDUCTOR_POINTS:
                # The checks are begun right after the request's own commit, which test_request_lost covers.
                if (point, key) not in seen and not (key.startswith('call:') and point == 'before-commit'):
                    seen.add((point, key))
                    yield course, point, key


def name_of(*words):
    """Make a test's name."""
    return '_'.join(str(w) for w in words).replace('-', '_').replace(':', '_')
