"""What people look at: knows tables, arrays and the exact maths, and nothing of how they came.

style       colours and names of the losses, axes that figures share
figures     every figure, a function that takes tables
scenes      figures that an explorer moves
explorers   dials around a scene, for a notebook
"""
