"""Settings of the documentation; built by `make docs`."""

from importlib.metadata import version as installed_version

project = "undistill"
author = "the undistill authors"
copyright = "2026, the undistill authors"
release = version = installed_version("undistill")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx-mathjax-offline"]
exclude_patterns = [
    "_build",
    "results/self-check/*.md",
    "results/calibration/*.md",
]  # these are included by other pages

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # an array shape such as "n *shape" would be read as markup

html_theme = "furo"
html_title = "undistill"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
