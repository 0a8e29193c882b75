"""What goes wrong is one line and an exit code; what is mistyped is refused before anything is sent."""
import configparser
import io
import pathlib

from migrator import exceptions
from migrator.cli import commands, connect, exit_codes
from migrator.cli.main import App
from tests.unit.cli.support import ERRORS, CommandCase

ROOT = pathlib.Path(__file__).resolve().parents[3]


class ErrorTest(CommandCase):

    def test_every_error_of_the_conductor_has_its_line_and_code(self):
        known = {code for code, _words in exit_codes.MEANINGS}
        for error in ERRORS:
            self.assert_refused(self.run_cli('host', 'list', hosts=error('it is so')), error.exit_code, error.__name__, 'it is so')
            self.assertIn(error.exit_code, known)

    def test_a_text_of_many_lines_becomes_one(self):
        result = self.run_cli('host', 'list', hosts=exceptions.DriverError('first\nsecond\x1b[2J'))
        self.assert_refused(result, 5, 'DriverError', 'first second?[2J')

    def test_a_defect_is_one_line_too(self):
        self.assert_refused(self.run_cli('host', 'list', hosts=RuntimeError('oh')), 1, 'RuntimeError', 'oh')

    def test_a_traceback_comes_on_demand_only(self):
        for error in (exceptions.HostDown('gone'), RuntimeError('oh')):
            self.assertNotIn('Traceback', self.run_cli('host', 'list', hosts=error).err)
        result = self.run_cli('--debug', 'host', 'list', hosts=exceptions.HostDown('gone'))
        self.assertEqual(4, result.code)
        self.assertIn('Traceback (most recent call last)', result.err)
        self.assertTrue(result.err.endswith('migrator: HostDown: gone\n'), result.err)

    def test_a_reader_that_went_away(self):
        self.assertEqual(141, self.run_cli('host', 'list', hosts=BrokenPipeError()).code)


class BadInputTest(CommandCase):

    def test_what_is_mistyped_is_not_sent(self):
        create = 'instance create x --host host-a '
        for line, words in (
                ('migration show nonsense', 'nonsense'), ('migration abort 123', 'uuid'), ('migration list --status odd', 'odd'),
                ('migration list --limit 0', '--limit'), ('migration watch', 'MIGRATION'),
                ('host show a/b', 'a/b'), ('host disable host-a', '--reason'),
                ('live-migrate web-1', 'HOST'), ('live-migrate web-1 host-b --bandwidth 5X', '5X'),
                ('live-migrate web-1 host-b --bandwidth=-1', '-1'),
                ('live-migrate web-1 host-b --wait --dry-run', '--dry-run'), ('live-migrate web-1 host-b --wait --timeout nan', 'nan'),
                (create, 'nothing to boot'), (create + '--disk target=vda,size=1Q', '1Q'), (create + '--disk target=vda,size=-4', '-4'),
                (create + '--disk target=vda,colour=red', 'colour'), (create + '--disk target=vda', 'size='),
                (create + '--disk size=1G', 'target='),
                (create + '--disk target=vda,size=0', 'size 0'), (create + '--disk target=vda,size=1G,size=2G', 'twice'),
                (create + '--volume target=vda', 'uri='), (create + '--kernel /k --memory 1', '--memory'),
                (create + '--kernel /k --vcpus 0', 'vcpus'),
                (create + '--kernel k', 'kernel'), (create + '--initrd /i --disk target=vda,size=1G', '--kernel'),
                (create + '--kernel /k --uuid 12', 'uuid'), ('instance stop web-1 --grace=-2', '--grace'),
                ('instance list --state odd', 'odd'), ('host list --format xml', 'xml'), ('hots list', 'hots list'),
                ('host', 'did you mean `host disable`, `host enable`, `host list` or `host show`?'),
                ('instance lst', 'there is no command instance lst; did you mean `instance list`?'),
                ('live_migrate web-1', 'did you mean `live-migrate`?'), ('frobnicate', '`migrator --help` lists them')):
            result = self.run_cli(*line.split())
            self.assert_refused(result, 2, 'InvalidRequest', words)
            self.assertEqual([], result.calls, line)

    def test_no_command_shows_the_way_to_the_help(self):
        result = self.run_cli()
        self.assertEqual((2, ''), (result.code, result.out))
        self.assertIn('migrator --help', result.err)


class HelpTest(CommandCase):

    def test_help_lists_every_command_and_every_exit_code(self):
        result = self.run_cli('--help')
        self.assertEqual((0, ''), (result.code, result.err))
        for name in commands.COMMANDS:
            self.assertIn(f'\n  {name} ', result.out)
        for code, words in exit_codes.MEANINGS:
            self.assertIn(f'{code}  {words}', result.out)

    def test_every_command_has_help(self):
        for name in commands.COMMANDS:
            result = self.run_cli(*name.split(), '--help')
            self.assertEqual((0, ''), (result.code, result.err))
            self.assertIn(f'usage: migrator {name}', result.out)

    def test_the_table_of_commands_and_the_entry_points_agree(self):
        setup = configparser.ConfigParser()
        setup.read(ROOT / 'setup.cfg')
        points = dict(line.split(' = ') for line in setup['entry_points']['migrator.cli'].strip().splitlines())
        self.assertEqual({name.replace(' ', '_'): value for name, value in commands.COMMANDS.items()}, points)


class ConnectTest(CommandCase):

    def run_real(self, *argv):
        out, err = io.StringIO(), io.StringIO()
        code = App(stdout=out, stderr=err).run(list(argv))
        return code, out.getvalue(), err.getvalue()

    def test_a_configuration_file_that_is_not_there(self):
        code, _out, err = self.run_real('--config-file', str(self.temp_dir / 'none.conf'), 'host', 'list')
        self.assertEqual(2, code)
        self.assertRegex(err, r'\Amigrator: InvalidRequest: there is no configuration file [^\n]*none.conf\n\Z')

    def test_a_url_that_is_none(self):
        code, _out, err = self.run_real('--transport-url', 'bogus', 'host', 'list')
        self.assertEqual(2, code)
        self.assertRegex(err, r'\Amigrator: InvalidRequest: transport_url cannot be used: [^\n]+\n\Z')

    def test_the_option_comes_before_the_variable_and_that_before_the_file(self):
        file = self.temp_dir / 'some.conf'
        file.write_text('[DEFAULT]\ntransport_url = nonsense-of-the-file\n')
        asked = []
        for option, environ in (('a://', {connect.URL_VARIABLE: 'b://'}), (None, {connect.URL_VARIABLE: 'b://'}), (None, {})):
            error = self.assertRaises(exceptions.InvalidRequest, connect.conductor_api, [file], option, environ)
            asked.append(str(error))
        self.assertEqual(['"a"' in asked[0], '"b"' in asked[1], 'No scheme' in asked[2]], [True, True, True], asked)

