"""Figures and explorers: drawn from tables, arrays and `dro` alone, whoever made them.

style       colours and names of the losses, axes that figures share
figures     every figure, a function that takes tables
scenes      figures that an explorer moves
explorers   dials around a scene, for a notebook
live        explorers in the browser itself, for a page without a server
"""
