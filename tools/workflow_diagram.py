"""Draw every workflow from its table, and print the tables where-is-the-guest and where-is-the-volume, so that the documentation cannot
drift from the code.

Writes doc/source/generated/WORKFLOW.dot, locate.rst and locate_volume.rst; with --check it changes nothing and exits with 1 if a file is
outdated.
"""
import argparse
import itertools
import pathlib
import sys

from migrator.conductor import locate, locate_volume
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.conditions import meaning
from migrator.conductor.workflows.model import Mode
from migrator.rpc.facts import Location
from migrator.states import GuestState, PauseReason

TARGET = pathlib.Path(__file__).resolve().parent.parent / 'doc/source/generated'

#: What the two of them may say, as (words, states, reasons, job active, persistent); None: any. The tool refuses to print a table
#: whose lines overlap, leave an answer out, or lump together what gets different verdicts.
PLAIN = (PauseReason.NONE, PauseReason.USER, PauseReason.IO_ERROR, PauseReason.OTHER, PauseReason.MIGRATION)
POST_COPY = (
    ('post-copy broke off', None, (PauseReason.POST_COPY_FAILED,), None, None),
    ('post-copy', tuple(state for state in GuestState if state is not GuestState.DEAD), (PauseReason.POST_COPY,), None, None),
    ('post-copy, then off, attested', (GuestState.DEAD,), (PauseReason.POST_COPY,), None, None),
)
ORDINARY = (
    ('running', (GuestState.RUNNING,), PLAIN),
    ('paused', (GuestState.PAUSED,), PLAIN[:-1]),
    ('paused by hand-over', (GuestState.PAUSED,), (PauseReason.MIGRATION,)),
    ('incoming', (GuestState.INCOMING,), PLAIN),
    ('off', (GuestState.OFF,), PLAIN),
    ('absent', (GuestState.ABSENT,), PLAIN),
    ('unreachable', (GuestState.UNREACHABLE,), PLAIN),
    ('off, attested', (GuestState.DEAD,), PLAIN),
)
SOURCE = (*POST_COPY, *((words + (', job' if job else ''), states, reasons, job, None)
                        for words, states, reasons in ORDINARY for job in (False, True)))
DESTINATION = (*POST_COPY, *((words + {True: ', defined', False: ', not defined', None: ''}[persistent], states, reasons, None, persistent)
                             for words, states, reasons in ORDINARY
                             for persistent in ((False, True) if words == 'off' else (None,))))


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
        lines.append(f'  {step.name} [label={quote(label_of(step))}];')
        if step.observe:
            seen = f'{step.observe} at both hosts\\nno return when {step.no_return_when}'
            lines += [f'  observe_{step.name} [shape=diamond, label={quote(seen)}];']
        names += [step.name] + ([f'observe_{step.name}'] if step.observe else [])
    names.append('completed')
    lines += [f'  {a} -> {b};' for a, b in itertools.pairwise(names)]
    lines += undo_lines(workflow)
    return '\n'.join([*lines, '}']) + '\n'


def label_of(step):
    """Say what stands in a step's box: where it is done and when, and what the catalogue learns by it."""
    parts = [f'{step.name} ({step.on.value})']
    if step.when:
        parts.append(f'if {meaning(step.when)}')
    if step.outcomes:
        parts += [f'commit, where {meaning(o.when)}: {o.commit.value}' for o in step.outcomes]
        parts.append(f'else: {step.declined}')
    elif step.commit:
        parts.append(f'commit: {step.commit.value}')
    if step.doubt:
        parts.append(f'if it fails: {step.doubt} at both hosts')
    if step.vital:
        parts.append('tried until it is done; after some attempts an operator is called')
    return '\\n'.join(parts)


def undo_lines(workflow):
    """Give the way back: every step that can fail leads to the undos, in the table's order."""
    lines, back = ['  failed [shape=ellipse, label="failed or cancelled"];'], list(workflow.undo_order)
    for method in back:
        on = workflow.step(method).undo.on.value
        lines.append(f'  {method} [label={quote(f"{method} ({on})")}, color=grey40, fontcolor=grey40];')
    lines += [f'  {a} -> {b} [color=grey40];' for a, b in itertools.pairwise([*back, 'failed'])]
    first = back[0] if back else 'failed'
    for step in workflow.operations:
        if step.owed or step.vital:
            continue
        origin = f'observe_{step.name}' if step.observe else step.name
        lines.append(f'  {origin} -> {first} [style=dashed, color=grey40, label="{verdict_at(step)}"];')
    if any(s.mode is Mode.CALL for s in workflow.steps):
        lines.append('  checking -> failed [style=dashed, color=grey40, label="do not fit"];')
    return lines


def verdict_at(step):
    """Say what leads from a step to the undos."""
    return 'guest at source' if step.observe else 'fails, volume at source' if step.doubt else 'fails'


def sorted_out(patterns):
    """Give all answers that fit each pattern, by its words. ValueError unless each answer fits exactly one."""
    found = {pattern[0]: [] for pattern in patterns}
    for answer in itertools.product(GuestState, PauseReason, (False, True), (False, True)):
        fitting = [words for words, *wanted in patterns if all(map(fits, wanted, answer))]
        if len(fitting) != 1:
            raise ValueError(f'{answer} fits {fitting or "no line"} of the table where-is-the-guest')
        found[fitting[0]].append(Location(*answer))
    return found


def fits(wanted, value):
    """Tell whether one part of an answer is as a pattern wants it: any, one of several, or this."""
    return wanted is None or (value in wanted if isinstance(wanted, tuple) else value is wanted)


def verdict_of(sources, destinations):
    """Give the one verdict of all pairs. ValueError if they differ."""
    verdicts = {locate.find(source, destination).verdict.value for source, destination in itertools.product(sources, destinations)}
    if len(verdicts) != 1:
        raise ValueError(f'a cell of the table where-is-the-guest has several verdicts: {sorted(verdicts)}; source {sources[0]}')
    return verdicts.pop()


def locate_table():
    """Give the verdicts as a reStructuredText list-table: rows are the source's answer, columns the destination's."""
    rows, columns = sorted_out(SOURCE), sorted_out(DESTINATION)
    lines = ['.. list-table:: Verdict by what the source (rows) and the destination (columns) answer', '   :header-rows: 1',
             '   :stub-columns: 1', '', '   * - source \\\\ destination']
    lines += [f'     - {name}' for name in columns]
    for name, sources in rows.items():
        lines.append(f'   * - {name}')
        lines += [f'     - {verdict_of(sources, destinations)}' for destinations in columns.values()]
    return '\n'.join(lines) + '\n'


def volume_table():
    """Give the verdicts on volumes in the same form. An operation that is at work at either side is left out: then it is waited for."""
    columns = [locate_volume.Answer(state, in_use) for state in locate_volume.Said for in_use in (False, True)
               if not in_use or state in (locate_volume.Said.PARTIAL, locate_volume.Said.MIRRORED, locate_volume.Said.COMPLETE)]
    rows = [answer for answer in columns if not answer.in_use]
    lines = ['.. list-table:: Verdict by what the source (rows) and the destination (columns) answer', '   :header-rows: 1',
             '   :stub-columns: 1', '', '   * - source \\\\ destination']
    lines += [f'     - {locate_volume.describe(answer)}' for answer in columns]
    for source in rows:
        used = locate_volume.Answer(source.state, True)
        lines.append(f'   * - {locate_volume.describe(source)}')
        for destination in columns:
            verdict = locate_volume.find(source, destination).verdict
            if locate_volume.find(used, destination).verdict is not verdict:
                raise ValueError(f'whether the source is in use makes a difference: {source}, {destination}')
            lines.append(f'     - {verdict.value}')
    return '\n'.join(lines) + '\n'


def main():
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true')
    check = parser.parse_args().check
    files = {f'{kind}.dot': draw(workflow) for kind, workflow in WORKFLOWS.items()} | {
        'locate.rst': locate_table(), 'locate_volume.rst': volume_table()}
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
