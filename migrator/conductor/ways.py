"""Which way the migration of a volume has taken, and why none before it: source driver, target driver, host copy. Pure."""
from migrator.conductor.workflows import conditions

SOURCE, TARGET, TARGET_ASYNC, COPY = 'source driver', 'target driver', 'target driver, data follows', 'host copy'


def taken(options, facts):
    """Say it by what was asked for and by what the steps have returned: {'way', 'why'}, both '' while it is not known.

    options: of the request. facts: step -> what it returned.
    """
    known = {**facts, 'options': options, 'moved': False}
    against = conditions.drivers_may_move(known)
    if not conditions.moved_by_source(known):
        return {'way': SOURCE, 'why': 'the source array has moved it by itself'}
    declined = 'the source array does not move it by itself' if 'migrate_volume' in facts else ''
    if not conditions.taken_over(known):
        return {'way': TARGET if not conditions.taken_over_at_once(known) else TARGET_ASYNC, 'why': declined}
    if 'create_target_volume' in facts:
        both = [declined] if declined else []
        both += ['the target array does not take it over'] if 'migrate_volume_target' in facts else []
        return {'way': COPY, 'why': against or ', and '.join(both)}
    return {'way': '', 'why': ''}


def planned(here, there, options):
    """Say which ways would be tried, in their order. here, there: names of the backends. options: of the request."""
    against = conditions.drivers_may_move({'options': options, 'moved': False})
    if against:
        return [f'{COPY}: {against}']
    return [f'{SOURCE}: {here} is asked to move it', f'{TARGET}: {there} is asked to take it over', COPY]
