"""The project's own style check: each rule is shown to find its violation, and to leave alone what is allowed."""
import importlib.util
import pathlib
import textwrap

from tests import base

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _load():
    """tools/ is no package."""
    spec = importlib.util.spec_from_file_location('check_style', ROOT / 'tools/check_style.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_style = _load()


class CheckStyleCase(base.TestCase):
    def complaints(self, path, code):
        text = '"""What it is for."""\n' + textwrap.dedent(code)
        return [complaint for _, complaint in check_style.check(pathlib.Path(path), text)]

    def assertFound(self, words, path, code):
        found = self.complaints(path, code)
        self.assertEqual(1, len(found), found)
        self.assertIn(words, found[0])

    def assertClean(self, path, code):
        self.assertEqual([], self.complaints(path, code))

    def test_areas_do_not_import_one_another(self):
        areas = ('conductor', 'compute', 'volume', 'share')
        for area in areas:
            for other in set(areas) - {area}:
                for statement in (f'import migrator.{other}.manager', f'from migrator.{other} import manager',
                                  f'from migrator import {other}', f'from ..{other} import manager',
                                  f'def f():\n    from migrator.{other}.drivers import fake'):
                    self.assertFound('they meet over RPC only', f'migrator/{area}/x.py', statement)
            self.assertClean(f'migrator/{area}/x.py', f'from migrator.{area} import y\nfrom migrator.rpc import compute')

    def test_relative_imports_are_resolved_in_packages_too(self):
        self.assertFound('migrator.compute', 'migrator/conductor/db/__init__.py', 'from ...compute import driver')
        self.assertClean('migrator/conductor/db/__init__.py', 'from .. import compute_facts')

    def test_packages_stay_where_they_belong(self):
        for package, home, elsewhere in (
                ('sqlalchemy', 'conductor/db/tables.py', 'conductor/engine.py'),
                ('libvirt', 'compute/drivers/libvirt/driver.py', 'compute/manager.py'),
                ('oslo_messaging', 'rpc/transport.py', 'conductor/manager.py'), ('eventlet', 'concurrency.py', 'service.py'),
                ('alembic', 'conductor/db/schema.py', 'cmd/manage.py')):
            for statement in (f'import {package}', f'import {package}.sub as x', f'from {package} import y', f'from {package}.sub import y',
                              f'import importlib\nz = importlib.import_module("{package}")', f'z = __import__("{package}.sub")'):
                self.assertFound(f'{package} may be imported only in', f'migrator/{elsewhere}', statement)
                self.assertClean(f'migrator/{home}', statement)
        self.assertClean('migrator/service.py', 'import sqlalchemyish')

    def test_the_product_does_not_import_tests_but_tests_import_anything(self):
        self.assertFound('its tests', 'migrator/service.py', 'from tests import base')
        self.assertClean('tests/unit/test_x.py', 'import eventlet\nimport sqlalchemy\nimport libvirt\nfrom tests import base')

    def test_pure_modules_import_the_standard_library_and_their_siblings_only(self):
        pure = ('migrator/states.py', 'migrator/conductor/decide.py',
                'migrator/conductor/workflows/live_migration.py', 'migrator/rpc/facts.py')
        for path in pure:
            self.assertFound('must not import tenacity', path, 'import tenacity')
            self.assertFound('must not import migrator.conductor.db', path, 'from migrator.conductor import db')
            self.assertFound('must not import migrator.config', path, 'from migrator import config')
            self.assertFound('no input, output or clock', path, 'import time')
            self.assertFound('no input, output or clock', path, 'from os import path')
            self.assertFound('must not read the clock', path, 'import datetime\nx = datetime.now()')
            self.assertClean(path, 'import dataclasses\nimport enum\n'
                                   'from migrator import exceptions, states\nfrom migrator.rpc.facts import Location')

    def test_a_process_has_a_timeout(self):
        for call in ('run', 'call', 'check_call', 'check_output'):
            self.assertFound('without a timeout', 'tests/lab/x.py', f'import subprocess\nsubprocess.{call}(["true"])')
            self.assertClean('tests/lab/x.py', f'import subprocess\nsubprocess.{call}(["true"], timeout=5)')
        self.assertClean('tests/lab/x.py', 'import subprocess\nsubprocess.run(["true"], timeout=None)\nsubprocess.run(["true"], **options)')

    def test_tests_are_not_skipped(self):
        self.assertFound('skipTest', 'tests/unit/test_x.py', 'def test_x(self):\n    self.skipTest("later")')
        self.assertFound('skipUnless', 'tests/unit/test_x.py',
                         'import unittest\n@unittest.skipUnless(False, "")\ndef test_x(self):\n    x()')

    def test_a_test_keeps_its_name(self):
        self.assertFound('the name of the test', 'tests/unit/test_x.py', 'def setUp(self):\n    self.id = 7')
        self.assertClean('tests/unit/test_x.py', 'def setUp(self):\n    print(self.id())')
        self.assertClean('tests/lab/x.py', 'def setUp(self):\n    self.id = 7')

    def test_long_functions_and_files(self):
        body = '    x = 1\n'
        self.assertClean('migrator/x.py', 'def f():\n' + body * (check_style.FUNCTION_LINES - 1))
        self.assertFound('f has 61 lines', 'migrator/x.py', 'def f():\n' + body * check_style.FUNCTION_LINES)
        self.assertClean('migrator/conductor/db/alembic/versions/0001_x.py', 'def upgrade():\n' + body * 200)
        self.assertClean('migrator/x.py', 'x = 1\n' * (check_style.FILE_LINES - 1))
        self.assertFound('451 lines', 'migrator/x.py', 'x = 1\n' * check_style.FILE_LINES)

    def test_names_docstrings_and_syntax(self):
        self.assertFound('says nothing', 'migrator/utils.py', 'x = 1')
        self.assertEqual([(1, 'the file does not say in a docstring what it is for')],
                         check_style.check(pathlib.Path('migrator/x.py'), 'x = 1\n'))
        self.assertEqual([], check_style.check(pathlib.Path('migrator/__init__.py'), ''))
        self.assertFound('does not parse', 'migrator/x.py', 'def f(:')

    def test_the_command_names_file_and_line_and_fails(self):
        log = self.useFixture(_Output())
        bad = ROOT / 'tests/unit/test_check_style.py'
        self.assertEqual(0, check_style.main([str(bad)]))
        self.patch(check_style, 'CONFINED', {'importlib': ('migrator.nowhere',)})
        self.patch(check_style, 'FILE_LINES', 10)
        self.assertEqual(1, check_style.main([str(bad)]))
        self.assertIn('tests/unit/test_check_style.py:10: ', log.text())
        self.assertIn('1 files checked, 1 violations', log.text())

    def test_every_module_called_pure_exists(self):
        for name in check_style.PURE:
            path = ROOT / name.replace('.', '/')
            self.assertTrue(path.with_suffix('.py').exists() or path.is_dir(), name)


class _Output(base.fixtures.Fixture):
    """What is printed."""

    def _setUp(self):
        self._stream = self.useFixture(base.fixtures.StringStream('stdout')).stream
        self.useFixture(base.fixtures.MonkeyPatch('sys.stdout', self._stream))

    def text(self):
        self._stream.flush()
        return self.getDetails()['stdout'].as_text()
