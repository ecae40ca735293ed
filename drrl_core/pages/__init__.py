"""Notebooks, executed and as pages.

runner      finds notebooks, checks their parameters, executes them; each run leaves a record
sweeps      the execution of a notebook as a job of a sweep
html        an executed notebook as one HTML file
story       the lesson for a reader who has never heard of it, one page
hosted      Colab and Binder, once the project has a public address
lesson      the lesson for teachers, with the numbers of executed notebooks
site        executed notebooks, results and reference as a site of static pages
templates/  the HTML, in Jinja2
"""
