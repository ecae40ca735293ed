"""The obvious implementation, to measure against: what published code for these losses does.

Every step draws negatives by `multinomial` over a dense users × items mask, normalises both whole
tables, scores gathered rows by `bmm`, moves β by SGD on the summed loss and takes a dense Adam
step; a graph backbone propagates through one COO matrix over all users and items.
"""

import time

import numpy as np
import torch
from torch.nn.functional import normalize


def steps(data, *, batch_size=1024, negatives=64, dim=64, most=10**9):
    """Seconds of each step of DrRL (γ* = 1.5, c = 1) on MF, for one epoch or `most` steps."""
    users = torch.from_numpy(np.repeat(np.arange(data.n_users), np.diff(data.train.indptr)))
    items = torch.from_numpy(data.train.indices.astype(np.int64))
    seen = torch.zeros(data.n_users, data.n_items, dtype=torch.bool)
    seen[users, items] = True
    tables = [
        torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(n, dim)))
        for n in (data.n_users, data.n_items)
    ]
    beta = torch.nn.Parameter(torch.full((data.n_users,), 0.7))
    model_step = torch.optim.Adam(tables, lr=1e-3)
    beta_step = torch.optim.SGD([beta], lr=1e-3)
    power = 1.5

    def bound(scores, margin):
        excess = 1e-6 + torch.relu(scores - margin[:, None])
        return margin + negatives ** (-1 / power) * torch.linalg.vector_norm(excess, power, dim=1)

    order, times = torch.randperm(len(users)), []
    for rows in order.split(batch_size)[:most]:
        start = time.perf_counter()
        u, i = users[rows], items[rows]
        j = torch.multinomial((~seen[u]).float(), negatives, replacement=True)
        all_users, all_items = normalize(tables[0], dim=1), normalize(tables[1], dim=1)
        positive = (all_users[u] * all_items[i]).sum(1)
        negative = torch.bmm(all_items[j], all_users[u][:, :, None]).squeeze(2)
        beta_step.zero_grad()
        bound(negative.detach(), beta[u]).sum().backward()
        beta_step.step()
        loss = (torch.relu(1 - positive) + bound(negative, beta[u].detach())).mean()
        model_step.zero_grad()
        loss.backward()
        model_step.step()
        loss.item()
        times.append(time.perf_counter() - start)
    return times


def graph_steps(data, *, layers=2, dim=64, batch_size=1024, negatives=64, most=10**9):
    """Seconds of each step of SL on LightGCN through one sparse (users + items)² matrix."""
    train = data.train.tocoo()
    n = data.n_users + data.n_items
    rows = np.concatenate([train.row, train.col + data.n_users])
    columns = np.concatenate([train.col + data.n_users, train.row])
    degree = np.bincount(rows, minlength=n)
    values = torch.from_numpy((degree[rows] * degree[columns]) ** -0.5).float()
    graph = torch.sparse_coo_tensor(np.stack([rows, columns]), values, (n, n)).coalesce()
    seen = torch.zeros(data.n_users, data.n_items, dtype=torch.bool)
    seen[train.row, train.col] = True
    table = torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(n, dim)))
    step = torch.optim.Adam([table], lr=1e-3)
    users = torch.from_numpy(train.row.astype(np.int64))
    items = torch.from_numpy(train.col.astype(np.int64))
    times = []
    for rows in torch.randperm(len(users)).split(batch_size)[:most]:
        start = time.perf_counter()
        u, i = users[rows], items[rows]
        j = torch.multinomial((~seen[u]).float(), negatives, replacement=True)
        layer, views = table, [table]
        for _ in range(layers):
            layer = torch.sparse.mm(graph, layer)
            views.append(layer)
        final = normalize(torch.stack(views).mean(0), dim=1)
        mine, theirs = final[: data.n_users], final[data.n_users :]
        positive = (mine[u] * theirs[i]).sum(1)
        negative = torch.bmm(theirs[j], mine[u][:, :, None]).squeeze(2)
        loss = (torch.logsumexp(negative / 0.2, 1) - positive / 0.2).mean()
        step.zero_grad()
        loss.backward()
        step.step()
        loss.item()
        times.append(time.perf_counter() - start)
    return times
