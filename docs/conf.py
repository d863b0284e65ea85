"""Sphinx builds the documentation: ``sphinx-build -W -b html docs build/docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import basicsr_clsd  # noqa: E402

project = 'basicsr-clsd'
author = 'The basicsr-clsd contributors'
copyright = author  # noqa: A001  (Sphinx's name)
release = basicsr_clsd.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['notebooks']
myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 3
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented_params'
autodoc_member_order = 'bysource'

html_theme = 'furo'
html_title = f'basicsr-clsd {release}'
html_static_path = ['_static']
html_css_files = ['tables.css']
html_theme_options = {'navigation_with_keys': True}
