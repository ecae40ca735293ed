"""The paper's numbers and claims, and what became of them here.

    published   the numbers as the paper prints them: Tables 1 to 4
    evidence    the records: their means, intervals and tests
    claims      each claim of the text, and the check that decides it
    lemmas      each lemma, checked against the solver
    scorecard   a row for each number and each claim, in a table and on a page
    tables      what was measured, as tables in Markdown pages
    plans       the sweeps that the figures take, and a folder of results completed by them

Each module uses those above it. Nothing but plans trains: runs are read from a folder of results.
"""
