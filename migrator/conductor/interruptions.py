"""How often in a row a step was interrupted without having come further. Pure.

Some steps keep what they did: a copy goes on behind what was flushed. However often such a one is interrupted, it is not hopeless as long
as each attempt adds something, and only those that added nothing are counted. The agent that comes back says what its predecessor's
attempt had come to, from its disk.
"""

#: Under which name the facts of a workflow have it.
NAME = 'interrupted'


def counted(known, step, result):
    """Count one more interruption. known: the facts so far. result: what the agent said of the attempt; `done` is how far it came.

    Returns what the facts are to have under NAME: {'step', 'done', 'idle'}; idle: how many in a row brought nothing.
    """
    before = known.get(NAME)
    if not isinstance(before, dict) or before.get('step') != step:
        before = {'done': 0, 'idle': 0}
    done = result.get('done')
    further = isinstance(done, int) and done > before['done']
    return {'step': step, 'done': done if further else before['done'], 'idle': 0 if further else before['idle'] + 1}


def idle(known, step):
    """Tell how often in a row the step was interrupted without having come further, None if that was not counted."""
    found = known.get(NAME)
    return found['idle'] if isinstance(found, dict) and found.get('step') == step else None
