"""The benchmark of copies, with volumes so small that its times say nothing."""
import types

from tests import base
from tests.bench import copies


class CopiesTest(base.TestCase):

    timeout = 120

    def test_every_tool_copies_in_every_case(self):
        """Given real arrays, when all cases are run, then every tool was measured in each, and each host copy was found to be equal."""
        said = []
        arguments = types.SimpleNamespace(size=4, delay=1.0, rounds=1, folder=str(self.temp_dir), realtime=False)
        results, verdicts = copies.run(arguments, said.append)
        for case in results.values():
            self.assertEqual(dict.fromkeys(copies.TOOLS, 1), {name: found['count'] for name, found in case['tools'].items()})
            self.assertEqual({'sampled': 1, 'full': 1}, {how: found['count'] for how, found in case['verified'].items()})
        self.assertEqual(6, len(verdicts))
        self.assertLess(results['sparse']['allocated'], 1.1 * results['sparse']['data'])
