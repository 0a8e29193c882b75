"""What a step may depend on: one pure function for each condition that a table names. Standard library only.

Each is given what is known when the workflow comes to the step: under the name of each earlier step what that returned, under `options`
what was asked for, and under `moved` whether the point of no return is behind it, which is committed together with the new
location. It says in words what speaks against the step, and nothing ('') if it is to be done.

What a driver returned is believed only where it is of the right type: what cannot be read is taken for the answer that destroys nothing.
"""


def not_moved(known):
    """For what only a volume needs that no array has moved."""
    return 'the volume has moved already' if known['moved'] else ''


def drivers_may_move(known):
    """For the two drivers: the seed asks them unless a host copy or another type was asked for."""
    options = known.get('options', {})
    if options.get('force_host_copy'):
        return 'a host copy was asked for'
    if options.get('new_type'):
        return 'another type was asked for, and no driver changes the type'
    return not_moved(known)


def moved_by_source(known):
    """For the outcome of the source driver."""
    return '' if said(known, 'migrate_volume', 'moved') is True else 'the source array does not move it by itself'


def taken_over(known):
    """For the outcome of the target driver: it is in charge, whether or not its data is there."""
    return '' if said(known, 'migrate_volume_target', 'moved') is True else 'the target array does not take it over'


def taken_over_at_once(known):
    """For the outcome of the target driver: it is in charge, and has the data."""
    return taken_over(known) or ('' if said(known, 'migrate_volume_target', 'migration_async') is False else 'its data is on its way')


def still_arriving(known):
    """For what waits until a target that was committed as in charge has all data."""
    if not known['moved'] or taken_over(known):
        return 'no array has taken it over'
    return '' if taken_over_at_once(known) else 'all of its data is there'


def said(known, step, name):
    """Give one thing that a step returned, None if it did not say."""
    told = known.get(step)
    return told.get(name) if isinstance(told, dict) else None


#: When each condition holds, as the workflow's diagram shows it.
MEANING = {
    not_moved: 'nothing has moved it yet',
    drivers_may_move: 'nothing has moved it yet, and neither a host copy nor another type was asked for',
    moved_by_source: 'the source array says that it has moved it',
    taken_over: 'the target array says that it has taken it over',
    taken_over_at_once: 'the target array says that it has taken it over with all data',
    still_arriving: 'the target array is in charge, and data is still on its way'}

CONDITIONS = {condition.__name__: condition for condition in MEANING}


def against(name, known):
    """Say what speaks against what depends on a condition, '' if nothing does. name: '' is no condition. KeyError for an unknown one."""
    return CONDITIONS[name](known) if name else ''


def meaning(name):
    """Say in words when a condition holds."""
    return MEANING[CONDITIONS[name]]
