"""Figures and explorers: drawn from tables, arrays, `dro` and what `losses` says of a loss.

style       colours and names of the losses, axes that figures share
words       what is seen in a figure, as text
figures     every figure, a function that takes tables
live        explorers as JavaScript: the same file in a notebook and in a page without a server
explorers   their Python side: data, dials as traits, the still picture in batch
stills      that picture of each explorer, and a film of the order
monitor     a training that is watched, and stopped by a button
exercises   answers that a cell checks
"""
