"""The files that describe the project to other tools agree with one another, and say what those tools accept."""
import configparser
import pathlib
import subprocess
import sys

import yaml

from tests import base

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _requirements(text):
    return {line.split('#')[0].strip() for line in text.splitlines()} - {''}


def _name(requirement):
    return requirement.split('>')[0].split('=')[0].strip().lower().replace('_', '-').replace('.', '-')


class RequirementsCase(base.TestCase):
    def setUp(self):
        super().setUp()
        self.setup = configparser.ConfigParser()
        self.setup.read(ROOT / 'setup.cfg')

    def test_requirement_files_repeat_the_extras(self):
        for extra, name in (('test', 'test-requirements.txt'), ('doc', 'doc/requirements.txt')):
            self.assertEqual(_requirements(self.setup['extras'][extra]), _requirements((ROOT / name).read_text()))

    def test_every_direct_dependency_has_a_lower_bound_and_a_constraint_above_it(self):
        constraints = dict(line.lower().split('==') for line in _requirements((ROOT / 'upper-constraints.txt').read_text()))
        constraints = {_name(name): version for name, version in constraints.items()}
        direct = _requirements((ROOT / 'requirements.txt').read_text())
        for extra in self.setup['extras'].values():
            direct |= _requirements(extra)
        for requirement in sorted(direct):
            self.assertIn('>=', requirement)
            lower = tuple(int(part) for part in requirement.split('>=')[1].split('.'))
            upper = tuple(int(part) for part in constraints[_name(requirement)].split('.'))
            self.assertTrue(lower <= upper, requirement)

    def test_entry_points_name_modules_of_the_project(self):
        for group in self.setup['entry_points'].values():
            for line in filter(None, group.splitlines()):
                target = line.split('=')[1].strip().split(':')[0]
                path = ROOT / target.replace('.', '/')
                self.assertTrue(path.with_suffix('.py').exists() or (path / '__init__.py').exists(), target)


class ComposeCase(base.TestCase):
    def _check(self, path):
        return subprocess.run([sys.executable, '-m', 'check_jsonschema', '--builtin-schema', 'vendor.compose-spec', path],
                              capture_output=True, text=True, timeout=50)

    def test_the_compose_file_is_valid(self):
        result = self._check(ROOT / 'compose.yaml')
        self.assertEqual(0, result.returncode, result.stdout)

    def test_the_schema_finds_a_mistake(self):
        document = yaml.safe_load((ROOT / 'compose.yaml').read_text())
        document['services']['rabbitmq']['port'] = document['services']['rabbitmq'].pop('ports')
        path = self.temp_dir / 'compose.yaml'
        path.write_text(yaml.safe_dump(document))
        result = self._check(path)
        self.assertEqual(1, result.returncode)
        self.assertIn('port', result.stdout)

    def test_servers_are_published_on_loopback_only(self):
        services = yaml.safe_load((ROOT / 'compose.yaml').read_text())['services']
        self.assertEqual({'rabbitmq', 'mariadb', 'postgresql'}, set(services))
        for name, service in services.items():
            self.assertTrue(service['ports'], name)
            for port in service['ports']:
                self.assertTrue(port.startswith('127.0.0.1:'), port)
