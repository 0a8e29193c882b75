"""What commands show: tables for people, JSON, YAML and CSV for machines."""
import csv
import json

import yaml

from migrator import exceptions
from migrator.cli import output
from tests.unit.cli.support import INSTANCE, MIGRATION, Answers, CommandCase, host, instance, migration


class HostTest(CommandCase):

    def test_a_list_is_a_table_in_words(self):
        result = self.run_cli('host', 'list', '--long', hosts=[host(), host('host-b', state='down', enabled=False)])
        self.assertEqual((0, ''), (result.code, result.err))
        rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in result.out.splitlines() if line.startswith('|')]
        self.assertEqual(['Name', 'State', 'Enabled', 'Hypervisor', 'Version', 'CPUs', 'Memory', 'Free'], rows[0][:8])
        self.assertEqual(['host-a', 'up', 'yes', 'QEMU', '7.2.0', '32', '64 GiB', '1.5 GiB'], rows[1][:8])
        self.assertEqual(['host-b', 'down', 'no'], rows[2][:3])

    def test_tables_fit_into_120_characters(self):
        """Given names as long as they usually are, a table needs no wider window, and --long has the rest."""
        moving = migration('needs_operator', instance_name='database-0123', source_host='compute-012', destination_host='compute-345',
                           reason='a host that must be heard does not answer')
        debt = {'id': MIGRATION, 'host': 'compute-012', 'instance_name': 'db-0123', 'action': 'rollback_live_migration_at_destination',
                'written_off_at': '', 'refused': False, 'state': 'open', 'created_at': '2026-01-31T12:00:00.123Z'}
        for line, more, answer in (
                ('host list', 'QEMU', {'hosts': [host('compute-012')]}),
                ('instance list', 'Locked by', {'instances': [instance(
                    'database-0123', host='compute-012', host_state='down', host_silent_seconds=23 * 60)]}),
                ('migration list', 'must be heard', {'list': [moving]}), ('debt list', 'Migration', {'debts': [debt]}),
                ('migration list --all-kinds', 'must be heard', {'list': [moving]})):
            short, long = self.run_cli(*line.split(), **answer).out, self.run_cli(*line.split(), '--long', **answer).out
            self.assertLessEqual(max(map(len, short.splitlines())), 120, short)
            self.assertNotIn(more, short)
            self.assertIn(more, long)

    def test_json_and_yaml_carry_the_whole_view(self):
        views = [host()]
        self.assertEqual(views, json.loads(self.run_cli('host', 'list', '-f', 'json', hosts=views).out))
        self.assertEqual(views, yaml.safe_load(self.run_cli('host', 'list', '-f', 'yaml', hosts=views).out))
        self.assertEqual(views[0], json.loads(self.run_cli('host', 'show', 'host-a', '-f', 'json', host_show=views[0]).out))

    def test_csv_carries_plain_values_under_the_names_of_the_api(self):
        rows = list(csv.DictReader(self.run_cli('host', 'list', '-f', 'csv', hosts=[host()]).out.splitlines()))
        self.assertEqual(('host-a', '65536', 'True'), (rows[0]['name'], rows[0]['memory_mib'], rows[0]['enabled']))

    def test_a_column_is_found_by_either_name(self):
        for column in ('Memory', 'memory_mib'):
            self.assertIn('64 GiB', self.run_cli('host', 'list', '-c', column, hosts=[host()]).out)
        self.assertEqual('65536\n', self.run_cli('host', 'list', '-f', 'value', '-c', 'memory_mib', hosts=[host()]).out)

    def test_an_unknown_column_is_refused(self):
        self.assert_refused(self.run_cli('host', 'list', '-c', 'colour', hosts=[host()]), 2, 'InvalidRequest', 'colour')

    def test_disable_passes_the_reason_on_and_shows_it(self):
        result = self.run_cli('host', 'disable', 'host-a', '--reason', 'new memory', host_disable=host(disabled_reason='new memory'))
        self.assertEqual([('host_disable', 'host-a', 'new memory')], result.calls)
        self.assertIn('new memory', result.out)

    def test_enable(self):
        self.assertEqual([('host_enable', 'host-a')], self.run_cli('host', 'enable', 'host-a', host_enable=host()).calls)


class InstanceTest(CommandCase):

    def test_list_asks_with_filters_and_shows_names(self):
        result = self.run_cli('instance', 'list', '--host', 'host-a', '--state', 'running', instances=[instance()])
        self.assertEqual([('instances', {'host': 'host-a', 'state': 'running'}, 1000, None)], result.calls)
        self.assertIn('256 MiB', result.out)

    def test_a_long_list_is_read_page_by_page(self):
        first = [instance(f'g-{n}', uuid=f'{n:08}-c09c-495b-ae0a-73d37d82ef7c') for n in range(1000)]
        result = self.run_cli('instance', 'list', '-f', 'json', instances=Answers([first, [instance('last')]]))
        self.assertEqual([None, first[-1]['uuid']], [call[-1] for call in result.calls])
        self.assertEqual(1001, len(json.loads(result.out)))

    def test_show_names_disks_in_words_and_json_keeps_them(self):
        shown = self.run_cli('instance', 'show', 'web-1', instance_show=instance())
        self.assertIn('vda: /instances/web-1/vda.qcow2, qcow2, 1 GiB', shown.out)
        shown = self.run_cli('instance', 'show', INSTANCE.upper(), '-f', 'json', instance_show=instance())
        self.assertEqual((instance(), [('instance_show', INSTANCE)]), (json.loads(shown.out), shown.calls))

    def test_a_state_that_is_old_says_so(self):
        """Given a host that is down, people read that the state is what it told last; machines find that in fields of its own."""
        gone = instance(host_state='down', host_silent_seconds=200, host_last_seen='2026-01-31T12:00:00.123Z')
        words = 'running (host down, last seen 3 min ago)'
        self.assertIn(words, self.run_cli('instance', 'show', 'web-1', instance_show=gone).out)
        lines = self.run_cli('instance', 'list', instances=[gone]).out.splitlines()
        cells = [line.split('|')[4].strip() for line in lines if line.startswith('|')]
        self.assertEqual(['State', words], [cells[0], ' '.join(cells[1:])])
        self.assertEqual('running\n', self.run_cli('instance', 'list', '-f', 'value', '-c', 'state', instances=[gone]).out)
        self.assertEqual([gone], json.loads(self.run_cli('instance', 'list', '-f', 'json', instances=[gone]).out))
        self.assertNotIn('down', self.run_cli('instance', 'list', instances=[instance()]).out)

    def test_how_long_ago_is_told_in_the_largest_unit(self):
        self.assertEqual(['0 s', '59 s', '3 min', '1 h', '1 day', '2 days'],
                         [output.ago(seconds) for seconds in (0, 59, 239, 3600, 86400, 2 * 86400)])

    def test_a_host_that_there_is_not(self):
        result = self.run_cli('instance', 'list', '--host', 'zzz', instances=exceptions.HostNotFound('there is no host zzz'))
        self.assert_refused(result, 3, 'HostNotFound', 'there is no host zzz')

    def test_create_sends_a_specification(self):
        made = migration('preparing', kind='instance_create', destination_host='')
        result = self.run_cli('instance', 'create', 'web-1', '--host', 'host-a', '--memory', '1G', '--vcpus', '2',
                              '--uuid', INSTANCE.upper(), '--disk', 'target=vda,size=2G,backing=/images/a,,b.qcow2', '--volume', 'target=vdb,uri=nbd://h:1/v',
                              '--no-start', '--request-id', 'r-1', instance_create=made)
        name, where, spec, request, start = result.calls[0]
        self.assertEqual(('instance_create', 'host-a', 'r-1', False), (name, where, request, start))
        self.assertEqual(('web-1', INSTANCE, 1024, 2), (spec['name'], spec['uuid'], spec['memory_mib'], spec['vcpus']))
        self.assertEqual([(2 << 30, '/images/a,b.qcow2', ''), (0, '', 'nbd://h:1/v')],
                         [(disk['size'], disk['backing'], disk['uri']) for disk in spec['disks']])
        self.assertIn('create and start', result.out)

    def test_create_can_be_repeated_under_its_request_id(self):
        """Given creations without a uuid, then the same request id asks for the same instance, and another or no id for another one."""
        made, asked = migration('preparing', kind='instance_create', destination_host=''), []
        for option in (('--request-id', 'r-1'), ('--request-id', 'r-1'), ('--request-id', 'r-2'), (), ()):
            result = self.run_cli('instance', 'create', 'web-1', '--host', 'host-a', '--kernel', '/k', *option, instance_create=made)
            asked.append((result.calls[0][2]['uuid'], result.calls[0][3]))
        self.assertEqual(asked[0], asked[1])
        self.assertEqual((4, 4), tuple(map(len, map(set, zip(*asked, strict=True)))))

    def test_stop_start_delete(self):
        view = migration('preparing', kind='instance_stop')
        for word, options, sent in (('start', (), ()), ('stop', ('--grace', 5), (5,)), ('delete', (), ())):
            result = self.run_cli('instance', word, 'web-1', *options, **{f'instance_{word}': view})
            self.assertEqual([(f'instance_{word}', 'web-1', None, *sent)], result.calls)


class MigrationTest(CommandCase):

    def test_list_shows_live_migrations_and_their_progress(self):
        view = migration(progress={'memory_total': 100, 'memory_remaining': 25})
        result = self.run_cli('migration', 'list', '--status', 'post-copy', '--host', 'host-a', '--limit', 5, list=[view])
        self.assertEqual([('list', {'host': 'host-a', 'status': 'post_copy', 'kind': 'live_migration'}, 5, None)], result.calls)
        self.assertIn('75 %', result.out)
        self.assertNotIn('Kind', result.out)

    def test_needs_attention_lists_every_kind(self):
        result = self.run_cli('migration', 'list', '--needs-attention', '--long', list=[migration('needs_operator')])
        self.assertEqual({'needs_attention': True}, result.calls[0][1])
        self.assertIn('Kind', result.out)

    def test_needs_attention_says_why_and_how_much_is_owed(self):
        """Given a long reason, the table has all of it and is no wider than others; CSV has it in one piece."""
        reason = 'neither host can be heard: alpha-0123 does not answer, and beta-0456 says that it knows nothing of the guest'
        owing = migration('needs_operator', instance_name='database-0123', reason=reason, debts=[{}, {}])
        lines = self.run_cli('migration', 'list', '--needs-attention', list=[owing]).out.splitlines()
        self.assertLessEqual(max(map(len, lines)), 120, lines)
        cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line.startswith('|')]
        self.assertEqual(['ID', 'About', 'Status', 'Debts', 'Reason'], cells[0])
        self.assertEqual([MIGRATION, 'database-0123', 'needs_operator', '2'], cells[1][:4])
        self.assertEqual(reason, ' '.join(row[4] for row in cells[1:]))
        [row] = csv.DictReader(self.run_cli('migration', 'list', '--needs-attention', '-f', 'csv', list=[owing]).out.splitlines())
        self.assertEqual((reason, '2'), (row['reason'], row['debts']))

    def test_an_empty_list_is_a_sentence_for_people_and_an_empty_list_for_machines(self):
        result = self.run_cli('migration', 'list', '--needs-attention', list=[])
        self.assertEqual((0, '', 'migrator: nothing needs attention\n'), (result.code, result.out, result.err))
        self.assertEqual([], json.loads(self.run_cli('migration', 'list', '-f', 'json', list=[]).out))
        self.assertEqual('', self.run_cli('host', 'list', hosts=[]).out)

    def test_show_has_the_timeline_and_the_debts(self):
        debts = [{'id': '1', 'host': 'host-b', 'action': 'post_live_migration_at_source', 'reason': 'host-b does not answer'}]
        result = self.run_cli('migration', 'show', MIGRATION, show=migration(debts=debts, statistics={'downtime_ms': 97}))
        for words in ('Timeline\n2026-01-31 12:00:00.123Z  checking', '(alice)', 'host-b does not answer', '97 ms', 'running: at work'):
            self.assertIn(words, result.out)

    def test_json_of_show_is_the_view_and_nothing_else(self):
        self.assertEqual(migration(), json.loads(self.run_cli('migration', 'show', MIGRATION, '-f', 'json', show=migration()).out))

    def test_control_characters_from_elsewhere_do_not_reach_the_terminal(self):
        result = self.run_cli('migration', 'show', MIGRATION, show=migration(reason='\x1b[2Jgone\nfalse line', instance_name='a\rb'))
        self.assertNotIn('\x1b', result.out)
        self.assertNotIn('\r', result.out)
        self.assertNotIn('\nfalse line', result.out)

    def test_a_dry_run_exits_by_its_verdict(self):
        view = {'dry_run': True, 'possible': False, 'reasons': ['the CPU does not fit'], 'instance_uuid': INSTANCE,
                'instance_name': 'web-1', 'source_host': 'host-a', 'destination_host': 'host-b', 'copy': ['vda']}
        result = self.run_cli('live-migrate', 'web-1', 'host-b', '--dry-run', live_migrate=view)
        self.assertEqual(4, result.code)
        self.assertIn('the CPU does not fit', result.out)
        self.assertEqual({'bandwidth_mib': 0, 'dry_run': True}, result.calls[0][-1])
        self.assertEqual(0, self.run_cli('live-migrate', 'web-1', 'host-b', '--dry-run', live_migrate={**view, 'possible': True}).code)

    def test_bandwidth_and_request_id_are_passed_on(self):
        result = self.run_cli('live-migrate', 'web-1', 'host-b', '--bandwidth', '1G', '--request-id', 'r-9', live_migrate=migration())
        self.assertEqual([('live_migrate', 'web-1', 'host-b', 'r-9', {'bandwidth_mib': 1024, 'dry_run': False})], result.calls)

    def test_force_complete(self):
        self.assertEqual([('force_complete', MIGRATION)],
                         self.run_cli('migration', 'force-complete', MIGRATION, force_complete=migration()).calls)
