"""Notebooks, executed and as pages.

runner      finds notebooks, checks their parameters, executes them; each run leaves a record
html        an executed notebook as one HTML file, and a gallery of them
templates/  the HTML of both, in Jinja2
"""
