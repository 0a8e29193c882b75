"""What the pool of workers does: what follows from a stored transition, and what is due; in turn when all of them are busy."""
import contextlib

from oslo_log import log

from migrator import exceptions
from migrator.conductor import stimulus
from migrator.conductor.agents import Reply

LOG = log.getLogger(__name__)


def go_on(engine, pool, migration_id, transition):
    """Have `engine.go_on` done by a concurrency.Pool. Until that has ended the workflow counts as worked on here.

    A transition whose turn comes after its claim has ended is read again like any that is due: another conductor may be at it. Whatever
    is not done here, the row says what is due, and the sweep takes it up.
    """
    claim = contextlib.ExitStack()
    claim.enter_context(engine.claims.of(migration_id))

    def work():
        with claim:
            if engine.clock() - transition.at < transition.after.policy.claim:
                engine.go_on(migration_id, transition)
            else:
                LOG.info('migration %s has waited for a worker for longer than its claim', migration_id)
                wake(engine, migration_id)
    if not pool.queue(work):
        claim.close()
        LOG.warning('no thread is to be had; migration %s goes on with the next sweep', migration_id)


def wake(engine, migration_id):
    """Take a workflow up if it is due; nothing is done if somebody else was faster. Raises nothing: it stays due."""
    try:
        engine.handle(migration_id, Reply(stimulus.Due()))
    except exceptions.Unavailable as error:
        LOG.debug('migration %s will be looked at again: %s', migration_id, error)
    except exceptions.MigratorError as error:
        LOG.warning('migration %s will be looked at again: %s', migration_id, error)
    except Exception:
        LOG.exception('migration %s will be looked at again', migration_id)
