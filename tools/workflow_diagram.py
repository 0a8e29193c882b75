"""Draw every workflow from its table, and print the table where-is-the-guest, so that the documentation cannot drift from the code.

Writes doc/source/generated/WORKFLOW.dot and locate.rst; with --check it changes nothing and exits with 1 if a file is outdated.
"""
import argparse
import itertools
import pathlib
import sys

from migrator.conductor import locate
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.model import Mode
from migrator.rpc.facts import Location
from migrator.states import GuestState, PauseReason

TARGET = pathlib.Path(__file__).resolve().parent.parent / 'doc/source/generated'

#: What a host may say, as the rows and columns of the printed table.
ANSWERS = (
    ('running', Location(GuestState.RUNNING)),
    ('running, job', Location(GuestState.RUNNING, job_active=True)),
    ('paused by user', Location(GuestState.PAUSED, PauseReason.USER)),
    ('paused by hand-over', Location(GuestState.PAUSED, PauseReason.MIGRATION)),
    ('paused by hand-over, job', Location(GuestState.PAUSED, PauseReason.MIGRATION, job_active=True)),
    ('incoming', Location(GuestState.INCOMING)),
    ('off, defined', Location(GuestState.OFF, persistent=True)),
    ('absent', Location(GuestState.ABSENT)),
    ('unreachable', Location(GuestState.UNREACHABLE)),
    ('off, attested', Location(GuestState.DEAD)),
)


def quote(text):
    """Quote a text for DOT."""
    return '"' + text.replace('"', '\\"') + '"'


def draw(workflow):
    """Give a workflow as a DOT graph: the way forward down the middle, undo in grey to the right."""
    lines = [f'digraph {workflow.kind} {{', '  rankdir=TB; node [shape=box, fontname="sans-serif", fontsize=10];',
             '  edge [fontname="sans-serif", fontsize=9];', '  queued [shape=ellipse]; completed [shape=ellipse];']
    names = ['queued']
    if workflow.checks:
        hosts = ' and '.join(f'{s.name} ({s.on.value})' for s in workflow.checks)
        lines.append(f'  checking [label={quote(hosts.replace(" and ", chr(92) + "n"))}, style=dashed];')
        names.append('checking')
    for step in workflow.operations:
        commit = f'\\ncommit: {step.commit.value}' if step.commit else ''
        lines.append(f'  {step.name} [label={quote(f"{step.name} ({step.on.value}){commit}")}];')
        if step.observe:
            seen = f'{step.observe} at both hosts\\nno return when {step.no_return_when}'
            lines += [f'  observe_{step.name} [shape=diamond, label={quote(seen)}];']
        names += [step.name] + ([f'observe_{step.name}'] if step.observe else [])
    names.append('completed')
    lines += [f'  {a} -> {b};' for a, b in itertools.pairwise(names)]
    lines += undo_lines(workflow)
    return '\n'.join([*lines, '}']) + '\n'


def undo_lines(workflow):
    """Give the way back: every step that can fail leads to the undos, in the table's order."""
    lines, back = ['  failed [shape=ellipse, label="failed or cancelled"];'], list(workflow.undo_order)
    for method in back:
        on = workflow.step(method).undo.on.value
        lines.append(f'  {method} [label={quote(f"{method} ({on})")}, color=grey40, fontcolor=grey40];')
    lines += [f'  {a} -> {b} [color=grey40];' for a, b in itertools.pairwise([*back, 'failed'])]
    first = back[0] if back else 'failed'
    for step in workflow.operations:
        if step.owed:
            continue
        origin = f'observe_{step.name}' if step.observe else step.name
        lines.append(f'  {origin} -> {first} [style=dashed, color=grey40, label="{"guest at source" if step.observe else "fails"}"];')
    if any(s.mode is Mode.CALL for s in workflow.steps):
        lines.append('  checking -> failed [style=dashed, color=grey40, label="do not fit"];')
    return lines


def locate_table():
    """Give the verdicts as a reStructuredText list-table: rows are the source's answer, columns the destination's."""
    columns = [a for a in ANSWERS if a[0] not in ('running, job', 'paused by hand-over, job')]
    lines = ['.. list-table:: Verdict by what the source (rows) and the destination (columns) answer', '   :header-rows: 1',
             '   :stub-columns: 1', '', '   * - source \\\\ destination']
    lines += [f'     - {name}' for name, _ in columns]
    for name, source in ANSWERS:
        lines.append(f'   * - {name}')
        lines += [f'     - {locate.find(source, destination).verdict.value}' for _, destination in columns]
    return '\n'.join(lines) + '\n'


def main():
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true')
    check = parser.parse_args().check
    files = {f'{kind}.dot': draw(workflow) for kind, workflow in WORKFLOWS.items()} | {'locate.rst': locate_table()}
    outdated = [n for n, text in files.items() if not (TARGET / n).exists() or (TARGET / n).read_text() != text]
    if check:
        for name in outdated:
            print(f'doc/source/generated/{name} is outdated: run tools/workflow_diagram.py', file=sys.stderr)
        return 1 if outdated else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in outdated:
        (TARGET / name).write_text(files[name])
        print(f'wrote doc/source/generated/{name}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
