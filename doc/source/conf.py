"""How Sphinx builds this documentation. Warnings are errors in the style job: `tox -e docs`."""
import importlib.metadata

project = 'migrator'
author = 'The migrator developers'
copyright = 'the migrator developers'    # noqa: A001 - Sphinx wants this name
release = importlib.metadata.version('migrator')
version = '.'.join(release.split('.')[:2])

extensions = ['sphinx.ext.autodoc', 'sphinx.ext.graphviz', 'oslo_config.sphinxext', 'reno.sphinxext']
root_doc = 'index'
exclude_patterns = ['generated/*.rst']

graphviz_output_format = 'svg'

html_theme = 'alabaster'
html_theme_options = {'description': 'Moves virtual machines, volumes and shares between hosts', 'page_width': '72rem',
                      'sidebar_width': '16rem', 'fixed_sidebar': True}
html_sidebars = {'**': ['about.html', 'navigation.html', 'searchbox.html']}
html_copy_source = False
html_show_sphinx = False
