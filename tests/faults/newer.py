"""Runs a daemon of the next minor version, to stand side by side with those of this one.

    python -m tests.faults.newer conductor --config-file …        (or compute)

It has one more argument of pre_live_migration, `hint`, which a newer conductor always gives and a newer agent writes into its
log, and one more method, `greet`, which a newer conductor uses for force-complete. All else is the product's own code.
"""
import dataclasses
import logging
import sys

LOG = logging.getLogger('migrator.newer')
HINT = 'a word of the next version'
NOW, NEXT = '1.1', '1.2'


def extend_contract():
    """Make the contract's next minor version. Comes before anything that reads it is imported."""
    from migrator.rpc import contract
    contract.COMPUTE_VERSION = NEXT
    known = contract.COMPUTE['pre_live_migration']
    contract.COMPUTE['pre_live_migration'] = dataclasses.replace(known, added=(('hint', NEXT),))
    contract.COMPUTE['greet'] = contract.Method('greet', contract.Kind.CALL, 10, ('word',), 'a greeting', since=NEXT)


def extend_conductor():
    """Let the conductor use what is new."""
    from migrator.conductor import service
    from migrator.rpc import facts
    from migrator.rpc.compute import ComputeAPI

    class NewerAPI(ComputeAPI):

        def pre_live_migration(self, context, host, envelope, plan):
            return self._start(context, host, 'pre_live_migration', envelope, plan=facts.to_wire(plan), hint=HINT)

        def force_complete_live_migration(self, context, host, migration_id, instance_uuid):
            return self._yes(context, host, 'greet', word=HINT)
    service.ComputeAPI = NewerAPI


def extend_agent():
    """Let the agent know what is new."""
    from migrator.compute import service
    from migrator.compute.manager import ComputeManager
    from migrator.rpc import contract, server

    class NewerManager(ComputeManager):

        @server.exposed(contract.COMPUTE)
        def pre_live_migration(self, context, envelope, plan, hint=''):
            LOG.warning('hint: %s', hint or 'none')
            return self._start_step('pre_live_migration', envelope, plan)

        @server.exposed(contract.COMPUTE)
        def greet(self, context, word):
            LOG.warning('greeted: %s', word)
            return True
    service.ComputeManager = NewerManager


def main():
    """Start the daemon."""
    from migrator import concurrency
    concurrency.setup()
    extend_contract()
    kind, *arguments = sys.argv[1:]
    if kind == 'conductor':
        extend_conductor()
        from migrator.cmd import conductor as program
    else:
        extend_agent()
        from migrator.cmd import compute as program
    program.main(arguments)


if __name__ == '__main__':
    main()
