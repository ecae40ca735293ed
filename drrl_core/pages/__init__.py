"""Notebooks, executed and as pages.

runner      finds notebooks, checks their parameters, executes them; each run leaves a record
sweeps      the execution of a notebook as a job of a sweep
html        an executed notebook as one HTML file, and a gallery of them
templates/  the HTML of both, in Jinja2
"""
