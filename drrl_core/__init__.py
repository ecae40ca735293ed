"""Distributionally robust losses for recommenders: SL, CCL and DrRL as one family.

>>> import torch
>>> from drrl_core import losses
>>> pos, neg = torch.tensor([0.9]), torch.tensor([[0.1, 0.2, 0.6]])
>>> losses.softmax_loss(pos, neg, temperature=0.2).shape
torch.Size([1])
"""

__version__ = "0.1.0"
