"""Notebooks, executed and as pages.

runner      finds notebooks, checks their parameters, executes them; each run leaves a record
html        an executed notebook as one HTML file
site        executed notebooks, results and reference as a site of static pages
templates/  the HTML, in Jinja2
"""
