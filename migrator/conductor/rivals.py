"""Do two machines bear one host's name? Tells that from an agent that was restarted. Pure.

An agent that is restarted has a new process, and the former one is never heard of again, but for heartbeats that were on their way. A
former process that goes on to tell, by its own clock too, for longer than anything is on its way lives beside its successor; so does
one that spoke after its successor by the clock of the machine that both run on. While both are heard of, nothing is begun there:
requests would reach now the one, now the other.
"""

#: Seconds after which nothing that an agent sent is still on its way.
ON_ITS_WAY = 60.0
#: Seconds without a heartbeat of one of the two after which there are not two any more.
FORGOTTEN_AFTER = 60.0

#: Column values of a host without a rival.
NONE = {'rival_process_id': '', 'rival_monotonic': 0.0, 'rival_since': 0, 'rival_seen': 0}


def noted(beat, known):
    """Give what is to be remembered of a heartbeat of a process that has a successor: column values; {} for any other heartbeat.

    beat: facts.Heartbeat. known: the service row before it, with the time as `now`; None for a new host. `rival_since` and
    `rival_monotonic` are of the first such heartbeat, by the database's clock and by the sender's, `rival_seen` of the last one.
    """
    if known is None or beat.process_id in ('', known.process_id):
        return {}
    again = beat.process_id == known.rival_process_id and known.now - known.rival_seen < FORGOTTEN_AFTER * 1000
    if not again and beat.process_id != known.former_process_id:
        return {}
    if known.host_boot_id and known.host_boot_id == beat.host_boot_id and beat.monotonic > known.monotonic:
        return {'rival_process_id': beat.process_id, 'rival_monotonic': beat.monotonic - ON_ITS_WAY,
                'rival_since': known.now - int(ON_ITS_WAY * 1000), 'rival_seen': known.now}
    if not again:
        return {'rival_process_id': beat.process_id, 'rival_monotonic': beat.monotonic, 'rival_since': known.now, 'rival_seen': known.now}
    aged = (beat.monotonic - known.rival_monotonic) * 2000 >= known.now - known.rival_since     # else it is one from before, delayed
    return {'rival_process_id': beat.process_id, 'rival_seen': known.now} if aged else {'rival_process_id': beat.process_id}


def lives(row):
    """Whether the rival was heard of for long enough that it is no straggler, and is heard of still."""
    return bool(row.rival_process_id) and row.rival_seen - row.rival_since >= ON_ITS_WAY * 1000 \
        and row.now - row.rival_seen < FORGOTTEN_AFTER * 1000


def outlived(beat, known):
    """Whether a rival is the one that is left, for its successor is not heard of any more: it is the host's agent again."""
    return known is not None and beat.process_id == known.rival_process_id and lives(known) \
        and known.now - known.last_seen >= FORGOTTEN_AFTER * 1000


def conflict(row):
    """Say in words that two agents have the name of a host, '' if not. row: a service row with the time as `now`."""
    if not lives(row) or row.now - row.last_seen >= FORGOTTEN_AFTER * 1000:
        return ''
    return f'two agents call themselves {row.host}: the processes {row.process_id} and {row.rival_process_id}; stop the one that is on ' \
           'the wrong machine, or give it a name of its own'
