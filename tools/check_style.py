"""Check what ruff cannot: which module may import what, how long files and functions may get, and a few names.

    python tools/check_style.py [FILE...]      without files: every Python file that git knows or would add

Prints one line for each violation, FILE:LINE: what is wrong, and exits with 1 if there is any. The rules are data, below; section
`Layout` of the contributor's guide gives the reasons.
"""
import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILE_LINES = 450
FUNCTION_LINES = 60
#: Folders of Alembic revisions, whose functions declare tables and are never changed again.
DECLARATIONS = ('versions',)

#: Parts that meet over RPC only.
AREAS = ('migrator.conductor', 'migrator.compute', 'migrator.volume', 'migrator.share')

#: Package -> where in migrator it may be imported. Tests may import everything.
CONFINED = {
    'sqlalchemy': ('migrator.conductor.db',),
    'alembic': ('migrator.conductor.db',),
    'libvirt': ('migrator.compute.drivers',),
    'libvirtmod': ('migrator.compute.drivers',),
    'oslo_messaging': ('migrator.rpc',),
    'kombu': ('migrator.rpc',),
    'amqp': ('migrator.rpc',),
    'eventlet': ('migrator.concurrency',),
    'greenlet': ('migrator.concurrency',),
}

#: Modules without input, output or clock, each testable cell by cell.
PURE = ('migrator.states', 'migrator.rpc.facts', 'migrator.rpc.contract', 'migrator.conductor.decide', 'migrator.conductor.locate',
        'migrator.conductor.locate_volume', 'migrator.conductor.turns', 'migrator.conductor.compatible',
        'migrator.conductor.compatible_volume', 'migrator.conductor.cursor', 'migrator.conductor.stimulus', 'migrator.conductor.workflows',
        'migrator.conductor.interruptions', 'migrator.conductor.room')
#: What they may import of migrator, besides one another.
PURE_SIBLINGS = ('migrator.exceptions',)
#: What of the standard library they may not import.
IMPURE = frozenset({'asyncio', 'fcntl', 'http', 'io', 'logging', 'multiprocessing', 'os', 'pathlib', 'queue', 'random', 'secrets', 'select',
                    'shutil', 'signal', 'socket', 'sqlite3', 'subprocess', 'tempfile', 'threading', 'time', 'urllib'})
CLOCK_CALLS = frozenset({'now', 'utcnow', 'today'})

FORBIDDEN_NAMES = frozenset({'utils', 'util', 'helpers', 'common', 'misc'})
SKIPS = frozenset({'skipTest', 'skip', 'skipIf', 'skipUnless', 'expectedFailure', 'SkipTest'})
PROCESS_CALLS = frozenset({'run', 'call', 'check_call', 'check_output'})


def inside(module, *packages):
    """Tell whether `module` is one of `packages` or lies below one."""
    return any(module == package or module.startswith(package + '.') for package in packages)


def module_name(path):
    """Return the dotted name of a file given relative to the root of the project."""
    parts = path.with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(tree, module, is_package):
    """Yield (line, dotted name) of everything imported, relative imports resolved; `from a import b` yields a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                package = module.split('.') if is_package else module.split('.')[:-1]
                base = '.'.join([*package[:len(package) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, f'{base}.{alias.name}'
        elif isinstance(node, ast.Call) and _called(node) in ('import_module', '__import__') and node.args:
            if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def _called(node):
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, 'id', None)


def check_imports(tree, module, is_package):
    """Yield (line, complaint) for imports that the architecture forbids."""
    area = next((area for area in AREAS if inside(module, area)), None)
    pure = inside(module, *PURE)
    for line, name in imports(tree, module, is_package):
        other = next((other for other in AREAS if inside(name, other)), None)
        if area and other and other != area:
            yield line, f'{area} must not import {other}: they meet over RPC only'
        top = name.split('.')[0]
        if module.startswith('migrator') and top in CONFINED and not inside(module, *CONFINED[top]):
            yield line, f'{top} may be imported only in {", ".join(CONFINED[top])}'
        if top == 'tests' and module.startswith('migrator'):
            yield line, 'the product must not import its tests'
        if pure:
            yield from _check_pure_import(line, name, top)


def _check_pure_import(line, name, top):
    if top == 'migrator':
        # `from migrator.rpc import facts` yields migrator.rpc.facts; a name within a pure module is inside that module
        if not inside(name, *PURE, *PURE_SIBLINGS):
            yield line, f'a pure module must not import {name}'
    elif top not in sys.stdlib_module_names:
        yield line, f'a pure module must not import {top}: the standard library only'
    elif top in IMPURE:
        yield line, f'a pure module must not import {top}: no input, output or clock'


def check_calls(tree, module):
    """Yield (line, complaint) for calls that have no place here."""
    pure = inside(module, *PURE)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = _called(node)
            owner = getattr(getattr(node.func, 'value', None), 'id', None)
            keywords = {keyword.arg for keyword in node.keywords}
            if owner == 'subprocess' and called in PROCESS_CALLS and not keywords & {'timeout', None}:
                yield node.lineno, f'subprocess.{called} without a timeout may hang for ever; say timeout=None if that is meant'
            if pure and called in CLOCK_CALLS and owner in ('datetime', 'date'):
                yield node.lineno, 'a pure module must not read the clock'
        if module.startswith('tests') and isinstance(node, ast.Attribute) and node.attr in SKIPS \
                and getattr(node.value, 'id', None) in ('self', 'unittest', 'testtools'):
            yield node.lineno, f'{node.attr}: a test is run or does not exist'
        if inside(module, 'tests.unit', 'tests.functional', 'tests.faults') and isinstance(node, ast.Attribute) and node.attr == 'id' \
                and isinstance(node.ctx, ast.Store) and getattr(node.value, 'id', None) == 'self':
            yield node.lineno, 'self.id is the name of the test, by which its runner knows it'


def check_size(tree, text, path):
    """Yield (line, complaint) for files and functions that got too long, and for names that say nothing."""
    count = text.count('\n')
    if count > FILE_LINES:
        yield FILE_LINES, f'{count} lines; a file has at most {FILE_LINES}'
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES and path.parent.name not in DECLARATIONS:
                yield node.lineno, f'{node.name} has {length} lines; a function has at most {FUNCTION_LINES}'
    if path.stem in FORBIDDEN_NAMES:
        yield 1, f'a module named {path.stem} says nothing about what is in it'
    if text.strip() and ast.get_docstring(tree) is None:
        yield 1, 'the file does not say in a docstring what it is for'


def check(path, text):
    """Return the violations in one file, as sorted pairs of line and complaint. path: relative to the root of the project."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return [(error.lineno or 1, f'does not parse: {error.msg}')]
    module = module_name(path)
    return sorted([*check_imports(tree, module, path.name == '__init__.py'), *check_calls(tree, module), *check_size(tree, text, path)])


def project_files():
    """Return the Python files of the project, relative to its root, whether committed yet or not."""
    known = subprocess.run(['git', '-C', ROOT, 'ls-files', '-z', '--cached', '--others', '--exclude-standard', '*.py'],
                           capture_output=True, timeout=60)
    if known.returncode == 0:
        names = known.stdout.decode().split('\0')
        return [pathlib.Path(name) for name in names if name and (ROOT / name).exists()]
    # not a clone: an unpacked tree
    return [path.relative_to(ROOT) for folder in ('migrator', 'tests', 'tools', 'doc') for path in sorted((ROOT / folder).rglob('*.py'))]


def main(argv):
    """Check the files named, or all; return the exit code."""
    files = [pathlib.Path(name).resolve().relative_to(ROOT) for name in argv] or project_files()
    violations = 0
    for path in files:
        for line, complaint in check(path, (ROOT / path).read_text()):
            print(f'{path}:{line}: {complaint}')
            violations += 1
    print(f'{len(files)} files checked, {violations} violations')
    return 1 if violations else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
