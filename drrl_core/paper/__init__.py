"""The paper's numbers and claims, and what became of them here.

    published   the numbers as the paper prints them: Tables 1 to 4
    evidence    the records: which runs count, their means, intervals and tests
    claims      each claim of the text, and the check that decides it
    lemmas      each lemma, checked against the solver
    scorecard   a row for each number and each claim, in a table and on a page
    tables      what was measured, as tables in Markdown pages

Each module uses those above it. Nothing here trains: runs are read from a folder of results.
"""
