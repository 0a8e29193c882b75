"""The application `migrator`: global options, one way to report errors, and the client that all commands share.

Every error is one line on standard error, `migrator: NameOfError: sentence`, with the exit code that `exit_codes` gives it; a
traceback appears only with --debug. Nothing heavy is imported before a command is known to need it.
"""
import argparse
import difflib
import importlib.metadata
import logging
import os
import sys
import threading
import time
import traceback

from cliff import app, help

from migrator import exceptions
from migrator.cli import exit_codes, interrupt
from migrator.cli.commands import CommandManager
from migrator.cli.errors import one_line, usage_error

LOG = logging.getLogger(__name__)

#: How long the end of a command waits for the connection to be closed in order.
CLOSE_SECONDS = 2.0

DESCRIPTION = 'Live-migrate virtual machines and see what becomes of it.'


def version():
    """Give the installed version; `unknown` when the source tree is run without an installation."""
    try:
        return importlib.metadata.version('migrator')
    except importlib.metadata.PackageNotFoundError:
        return 'unknown'


class App(app.App):
    """The application. Tests give it a client, streams and a clock; otherwise the client is made when the first command asks for it."""

    NAME = 'migrator'

    def __init__(self, api=None, stdin=None, stdout=None, stderr=None, clock=time.monotonic, sleep=time.sleep):
        """api: anything with ConductorAPI's methods. clock, sleep: seconds, for waiting."""
        super().__init__(DESCRIPTION, version(), CommandManager(), stdin, stdout, stderr, deferred_help=True)
        self.clock = clock
        self.sleep = sleep
        self._api = api
        self._own = api is None
        self.watched = {}       # migrations that are waited for: id -> last view, None before there is one
        self._interrupted = False

    def build_option_parser(self, description, version, argparse_kwargs=None):
        """Add migrator's global options to cliff's."""
        parser = super().build_option_parser(description, version, {
            'prog': self.NAME, 'usage': '%(prog)s [OPTION...] COMMAND [ARGUMENT...]', 'epilog': exit_codes.HELP,
            'formatter_class': argparse.RawDescriptionHelpFormatter,
            'allow_abbrev': False, **(argparse_kwargs or {})})
        parser.add_argument('--config-file', action='append', default=[], metavar='PATH',
                            help='configuration file, may be repeated; default: /etc/migrator/migrator.conf if it exists')
        parser.add_argument('--transport-url', metavar='URL',
                            help='message broker, such as rabbit://user:password@host:5672/; default: $MIGRATOR_TRANSPORT_URL, '
                                 'then transport_url of the configuration')
        parser.error = usage_error(self.NAME)
        return parser

    @property
    def api(self):
        """The client of the conductors."""
        if self._api is None:
            from migrator.cli import connect
            self._api = connect.conductor_api(self.options.config_file, self.options.transport_url)
        return self._api

    def configure_logging(self):
        """Keep libraries quiet: an error is told in one line. -v lets their warnings through, -vv and --debug everything."""
        super().configure_logging()
        level = {0: None, 1: None, 2: logging.WARNING}.get(self.options.verbose_level, logging.DEBUG)
        level = logging.DEBUG if self.options.debug else level
        console = logging.getLogger('').handlers[-1]
        self._console = console
        console.setLevel(logging.CRITICAL + 1 if level is None else level)

    def run(self, argv):
        """Run one command line. Returns the exit code; raises nothing but what --help and --version do to exit."""
        self.options = argparse.Namespace(debug='--debug' in argv)
        self._console = None
        try:
            return self._run(argv)
        except exceptions.MigratorError as error:
            return self._failed(error, f'{error.kind}: {error}', error.exit_code)
        except KeyboardInterrupt:
            self.stderr.write(self.last_words())
            self.stderr.flush()
            return exit_codes.INTERRUPTED
        except BrokenPipeError:
            return exit_codes.BROKEN_PIPE
        except Exception as error:  # noqa: BLE001 - one line for the operator; the traceback is there with --debug
            return self._failed(error, f'{type(error).__name__}: {error}', exit_codes.ERROR)
        finally:
            self._close()

    def _run(self, argv):
        self.options, rest = self.parser.parse_known_args(argv)
        self.configure_logging()
        if self.options.deferred_help:
            if rest:
                self.options.deferred_help = False
                rest.insert(0, 'help')
            else:
                return self._help(self.stdout, exit_codes.OK)
        if not rest:
            return self._help(self.stderr, exit_codes.USAGE)
        return self.run_subcommand(rest)

    def _help(self, stream, code):
        if code:
            self.parser.print_usage(stream)
            self.complain('no command was given; `migrator --help` lists them')
        else:
            self.parser.print_help(stream)
            stream.write(f'\nCommands (`{self.NAME} help COMMAND` tells more):\n')
            found = sorted((name, point) for name, point in self.command_manager if name != 'complete')
            for name, point in found:
                sentence = point.load()(self, None).get_description().strip().splitlines()[0]
                stream.write(f'  {name:<{max(len(other) for other, _ in found)}}  {sentence.rstrip(".")}\n')
        return code

    def run_subcommand(self, argv):
        """Find, parse and run a command; errors go to the caller, which cliff's own way would not let them."""
        try:
            factory, name, rest = self.command_manager.find_command(argv)
        except ValueError:
            words = [arg for arg in argv if not arg.startswith('-')] or argv[:1]
            near = suggestions(words, [name for name, _ in self.command_manager])
            hint = f'did you mean {listed(near)}?' if near else f'`{self.NAME} --help` lists them'
            raise exceptions.InvalidRequest(f'there is no command {" ".join(words[:2])}; {hint}') from None
        command = factory(self, self.options, cmd_name=name)
        parser = command.get_parser(f'{self.NAME} {name}')
        try:
            return command.run(parser.parse_args(rest))
        except help.HelpExit:
            return exit_codes.OK

    def _failed(self, error, sentence, code):
        if self.options.debug:
            self.stderr.write(''.join(traceback.format_exception(error)))
        self.complain(sentence)
        return code

    def complain(self, sentence):
        """Say one line on standard error."""
        self.stderr.write(f'{self.NAME}: {one_line(sentence)}\n')
        self.stderr.flush()

    def last_words(self):
        """Give the line that ^C ends with, once: '' when it was given before."""
        first, self._interrupted = not self._interrupted, True
        return f'{self.NAME}: {one_line(interrupt.sentence(self.watched))}\n' if first else ''

    def _close(self):
        if self._own and self._api is not None:
            # A connection that cannot be made is tried for ever, and closing waits for it.
            closing = threading.Thread(target=self._close_api, daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)
        if self._console is not None:
            logging.getLogger('').removeHandler(self._console)

    def _close_api(self):
        try:
            self._api.close()
        except Exception:  # the answer has been given; what fails here concerns nobody
            LOG.debug('the connection could not be closed', exc_info=True)


def suggestions(words, names):
    """Give the names of commands that may have been meant: those of the group that is named or nearly so, the likeliest if one is near."""
    groups = difflib.get_close_matches(words[0].replace('_', '-'), {name.split()[0] for name in names}, 1)
    verbs = {name.partition(' ')[2]: name for name in sorted(names) if name.split()[0] in groups}
    near = difflib.get_close_matches(words[1].replace('_', '-'), verbs, 3) if len(words) > 1 else []
    return [verbs[verb] for verb in near or verbs]


def listed(names):
    """Write names of commands as `a`, `b` or `c`."""
    *most, last = [f'`{name}`' for name in names]
    return f'{", ".join(most)} or {last}' if most else last


def main(argv=None):
    """Run `migrator`. Returns the exit code; does not return if a thread still tries to reach a broker."""
    app = App()
    interrupt.listen(app)
    code = app.run(sys.argv[1:] if argv is None else argv)
    code = _flushed(code)
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code)
    return code


def _flushed(code):
    """Write out what is still to be written. Returns the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.BROKEN_PIPE
    return code


if __name__ == '__main__':
    sys.exit(main())
