"""Figures and explorers: drawn from tables, arrays, `dro` and what `losses` says of a loss.

style       colours and names of the losses, axes that figures share
figures     every figure, a function that takes tables
scenes      figures that an explorer moves
explorers   dials around a scene, for a notebook
live        explorers in the browser itself, for a page without a server
"""
