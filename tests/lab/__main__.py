"""`python -m tests.lab up|down|status|run`: what tools/lab calls."""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.record import clean_dead

DEFAULT = pathlib.Path(__file__).resolve().parents[2] / '.lab'
EXIT_ERROR, EXIT_NOT_UP = 1, 3


def _parser():
    parser = argparse.ArgumentParser(prog='tools/lab',
                                     description='A small cloud on this machine: libvirt hosts, a broker and shared storage.')
    parser.add_argument('--folder', default=str(DEFAULT), help='the folder of the lab (default: .lab in the source tree)')
    commands = parser.add_subparsers(dest='command', required=True, metavar='up|down|status|run')
    up = commands.add_parser('up', help='build the lab, or do nothing if it stands; what a killed one left is removed first')
    up.add_argument('--hosts', type=int, default=2, help='how many libvirt hosts, 1 to 4 (default: 2)')
    up.add_argument('--database', choices=('sqlite', 'mariadb', 'postgresql'), default='sqlite', help='which database (default: sqlite)')
    up.add_argument('--no-broker', action='store_true', help='do not start RabbitMQ')
    down = commands.add_parser('down', help='end and remove everything; harmless when there is nothing')
    down.add_argument('--save-logs', metavar='FOLDER', help='copy the logs to FOLDER first')
    status = commands.add_parser('status', help='say what stands; exit code 0 if the lab is up, 3 if not')
    status.add_argument('--json', action='store_true', help='as JSON')
    run = commands.add_parser('run', help='run a program in a host, as in: tools/lab run alpha virsh list')
    run.add_argument('host', help='name of a host, or svc')
    run.add_argument('argv', nargs=argparse.REMAINDER, metavar='program …', help='the program with its arguments')
    return parser


def _up(options):
    lab = Lab(options.folder, options.hosts)
    for folder in clean_dead(apart_from=lab.id):
        print(f'removed what a killed lab left in {folder}')
    stood = lab.record.standing()
    lab.up(keep=True)
    try:
        if not options.no_broker:
            lab.start_service('rabbitmq')
        if options.database != 'sqlite':
            lab.start_service(options.database)
    except BaseException:
        if not stood:
            lab.down()
        raise
    lab.record.write(database=lab.record.data['services'].get(options.database) or lab.configuration.database_url())
    return _status(options)


def _down(options):
    lab = Lab(options.folder)
    if options.save_logs and lab.folder.exists():
        target = pathlib.Path(options.save_logs)
        for path in [*lab.folder.glob('log/*'), *lab.folder.glob('hosts/*/log/**/*')]:
            if path.is_file():
                copy = target / path.relative_to(lab.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    lab.down()
    print('the lab is down and nothing of it is left')
    return 0


def _status(options):
    status = Lab(options.folder).status()
    if getattr(options, 'json', False):
        print(json.dumps(status, indent=1))
    else:
        print('\n'.join(_words(status)))
    return 0 if status['state'] == 'up' else EXIT_NOT_UP


def _words(status):
    """The status as lines for people."""
    sentence = {'up': f'The lab in {status["folder"]} is up on {status["subnet"]}.',
                'down': f'There is no lab in {status["folder"]}.',
                'building': f'The lab in {status["folder"]} is being built; the last step begun: {(status["steps"] or ["none"])[-1]}.',
                'broken': f'The lab in {status["folder"]} is broken: its builder was killed or a host ended. Run: tools/lab up, or down'}
    yield sentence[status['state']] + (' It belongs to a running process and ends with it.' if status['in_use'] else '')
    if status['hosts']:
        rows = [('HOST', "LIBVIRT'S NAME", 'ADDRESS', 'STATE', 'LIBVIRTD', 'GUESTS', 'URI')]
        rows += [(host['name'], host['libvirt_name'], host['ip'], 'up' if host['up'] else 'down', str(host['libvirtd'] or 'not running'),
                  str(host['guests']), host['uri']) for host in status['hosts']]
        yield from _table(rows)
    for name, url in status['services'].items():
        yield f'{name}: {url}'
    if status['daemons']:
        rows = [('PROGRAM', 'IN', 'PROCESS', 'STATE', 'LOG')]
        rows += [(daemon['name'], daemon['host'] or 'this machine', str(daemon['pid']),
                  'running' if daemon['running'] else 'ended', daemon['log']) for daemon in status['daemons']]
        yield from _table(rows)


def _table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _run(options):
    if not options.argv:
        raise LabError('name a program to run')
    lab = Lab.attach(options.folder)
    place = lab.svc if options.host == 'svc' else lab.host(options.host)
    return subprocess.call(place.command(options.argv), timeout=None)    # it may be a shell


def main(argv):
    """Do what the command line asks for; errors are one line on standard error."""
    options = _parser().parse_args(argv)
    try:
        return {'up': _up, 'down': _down, 'status': _status, 'run': _run}[options.command](options)
    except (LabError, OSError, subprocess.SubprocessError) as error:
        print(f'tools/lab: {error}', file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print('tools/lab: interrupted; nothing half-built was left', file=sys.stderr)
        return EXIT_ERROR


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
