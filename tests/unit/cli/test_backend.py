"""migrator backend: what there is, how much room it has, and why one is of no use."""
import json

from migrator import exceptions
from tests.unit.cli.support import OTHER, CommandCase

GIB = 1 << 30


def backend(name='alpha@gold', **values):
    """A backend's view as a conductor gives it."""
    pool = {'name': f'{name}#p1', 'total': 10 * GIB, 'free': 4 * GIB, 'volumes': 2, 'allotted': 3 * GIB}
    return {'name': name, 'host': name.partition('@')[0], 'backend': name.partition('@')[2], 'driver': 'qsd', 'state': 'up', 'why': '',
            'enabled': True, 'disabled_reason': '', 'draining': False, 'types': ['fast', 'gold'], 'capabilities': ['take-over'],
            'array_id': 'array-1', 'pools': [pool], 'total': 10 * GIB, 'free': 4 * GIB, 'volumes': 2, 'debts': 0,
            'last_seen': '2026-01-31T12:00:00.123Z', 'process_id': OTHER, 'rpc_version': '1.0', **values}


class BackendTest(CommandCase):

    def test_a_list_fits_a_line(self):
        result = self.run_cli('backend', 'list', backends=[backend(), backend('beta@silver', state='offline', why='no route')])
        self.assertEqual((0, [('backends',)]), (result.code, result.calls))
        self.assertIn('fast, gold', result.out)
        self.assertIn('4 GiB', result.out)
        self.assertLessEqual(max(map(len, result.out.splitlines())), 120)

    def test_one_with_its_pools_and_why_it_is_of_no_use(self):
        result = self.run_cli('backend', 'show', 'alpha@gold', backend_show=backend(state='offline', why='no route to the array'))
        self.assertEqual([('backend_show', 'alpha@gold')], result.calls)
        self.assertIn('offline: no route to the array', result.out)
        self.assertIn('p1: 4 GiB free of 10 GiB, 2 volumes of 3 GiB in all', result.out)

    def test_for_machines_it_is_whole(self):
        result = self.run_cli('backend', 'show', 'alpha@gold', '-f', 'json', backend_show=backend())
        self.assertEqual(backend(), json.loads(result.out))

    def test_none_and_not_there(self):
        self.assertIn('no volume agent', self.run_cli('backend', 'list', backends=[]).err)
        refused = self.run_cli('backend', 'show', 'alpha@iron', backend_show=exceptions.BackendNotFound('there is no backend alpha@iron'))
        self.assert_refused(refused, 3, 'BackendNotFound', 'alpha@iron')
