"""What all commands share: errors instead of argparse's exits, lists and single views as tables or for machines.

JSON and YAML carry the whole view, as the API gives it; tables and CSV carry the columns that a command names.
"""
from cliff import command, lister, show

from migrator import exceptions
from migrator.cli.errors import usage_error

#: Formats whose values nest, so that nothing needs to be left out.
NESTED = ('json', 'yaml')


class Request(command.Command):
    """A command that asks the conductors something."""

    _epilog = 'Exit codes are listed by `migrator --help`.'
    app_dist_name = 'migrator'

    @property
    def api(self):
        """The client of the conductors."""
        return self.app.api

    def get_parser(self, prog_name):
        """Make the parser; wrong usage becomes InvalidRequest."""
        parser = super().get_parser(prog_name)
        parser.error = usage_error(prog_name)
        parser.allow_abbrev = False
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser):
        """Add the command's own arguments."""


class Displayed(Request):
    """A command with output in columns."""

    columns = ()

    def get_parser(self, prog_name):
        """Fit tables into a terminal, and only there."""
        parser = super().get_parser(prog_name)
        if self.app.stdout.isatty():
            parser.set_defaults(fit_width=True)
        return parser

    def names(self, parsed, shown):
        """Give the names of columns for the format that is asked for, and make -c understand both forms of a name.

        Raises InvalidRequest for a column that does not exist.
        """
        nested = parsed.formatter in NESTED
        table = parsed.formatter == 'table'
        names = list(shown) if nested else [c.heading if table else c.key for c in shown]
        known = {} if nested else {form: name for c, name in zip(shown, names, strict=True) for form in (c.key, c.heading)}
        known |= {name: name for name in names}         # last: what this format calls a column is meant first
        known = {self._normalize_column_name(form): name for form, name in known.items()}
        for group in ('columns', 'sort_columns'):
            wanted = [self._normalize_column_name(name) for name in getattr(parsed, group, [])]
            unknown = [name for name in wanted if name not in known]
            if unknown:
                raise exceptions.InvalidRequest(f'there is no column {", ".join(unknown)}; there are {", ".join(names)}')
            setattr(parsed, group, [known[name] for name in wanted])
        return names


class ListCommand(Displayed, lister.Lister):
    """A list of views.

    columns: of the table, few enough for 120 characters. long: all of them, for --long, -c and CSV. nothing: what is said on standard error
    in place of an empty table.
    """

    nothing = 'there is nothing to list'
    long = ()

    def get_parser(self, prog_name):
        """Add --long where there is more than the table shows."""
        parser = super().get_parser(prog_name)
        if self.long:
            parser.add_argument('--long', action='store_true', help='all columns')
        return parser

    def produce_output(self, parsed_args, column_names, data):
        """Write the list; an empty table would be an empty line."""
        if not data and parsed_args.formatter == 'table':
            self.app.complain(self.nothing)
            return 0
        return super().produce_output(parsed_args, column_names, data)

    def take_action(self, parsed_args):
        """Ask and give names and rows."""
        views = self.ask(parsed_args)
        if parsed_args.formatter in NESTED:
            keys = list(views[0]) if views else [column.key for column in self.columns]
            return self.names(parsed_args, keys), [[view.get(key, '') for key in keys] for view in views]
        shown = self.shown(parsed_args)
        return self.names(parsed_args, shown), [[column.cell(view) for column in shown] for view in views]

    def shown(self, parsed):
        """Give the columns of tables and CSV."""
        everything = self.long and (parsed.long or parsed.formatter != 'table' or parsed.columns or parsed.sort_columns)
        return self.long if everything else self.columns


class ShowCommand(Displayed, show.ShowOne):
    """One view."""

    code = 0
    complaint = ''

    def take_action(self, parsed_args):
        """Ask and give names and values."""
        self.view = self.ask(parsed_args)
        if parsed_args.formatter in NESTED:
            return self.names(parsed_args, list(self.view)), list(self.view.values())
        shown = [column for column in self.columns if self.worth(column, parsed_args)]
        return self.names(parsed_args, shown), [column.cell(self.view) for column in shown]

    def worth(self, column, parsed):
        """Tell whether a field is shown; in tables, those without a value are left out unless asked for."""
        return parsed.formatter != 'table' or bool(parsed.columns) or column.cell(self.view).human_readable() != ''

    def produce_output(self, parsed_args, column_names, data):
        """Print the fields, and what belongs below a table."""
        super().produce_output(parsed_args, column_names, data)
        if parsed_args.formatter == 'table' and not parsed_args.columns:
            for line in self.below(self.view):
                self.app.stdout.write(line + '\n')

    def below(self, _view):
        """Give the lines below the table."""
        return ()

    def run(self, parsed_args):
        """Run, print, and only then complain. Returns the exit code."""
        super().run(parsed_args)
        self.app.stdout.flush()
        if self.complaint:
            self.app.complain(self.complaint)
        return self.code
