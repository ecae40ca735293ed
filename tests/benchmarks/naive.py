"""The obvious implementation, to measure against: what published code for these losses does.

Every step draws negatives by `multinomial` over a dense users × items mask, normalises both whole
tables, scores gathered rows by `bmm`, moves β by SGD on the summed loss and takes a dense Adam
step; a graph backbone propagates through one COO matrix over all users and items. A ranking scores
users by the batch and looks for hits user by user.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import normalize

DRRL = {"loss": "drrl", "order": 3.0, "weight": 2.0, "start": 0.0, "dual_lr": 1e-3, "lr": 1e-3}
SL = {"loss": "sl", "temperature": 0.2, "lr": 1e-3}


def _pairs(data, device):
    users = np.repeat(np.arange(data.n_users), np.diff(data.train.indptr))
    items = data.train.indices.astype(np.int64)
    seen = torch.zeros(data.n_users, data.n_items, dtype=torch.bool, device=device)
    users, items = torch.from_numpy(users).to(device), torch.from_numpy(items).to(device)
    seen[users, items] = True
    return users, items, seen


def _table(n: int, dim: int, device) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(n, dim, device=device)))


def mf(data, settings: dict, *, negatives=64, dim=64, device="cpu"):
    """Tables (users, items), train pairs, and a function that takes a step on some pairs."""
    users, items, seen = _pairs(data, device)
    tables = [_table(n, dim, device) for n in (data.n_users, data.n_items)]
    model_step = torch.optim.Adam(tables, lr=settings["lr"])
    drrl = settings["loss"] == "drrl"
    if drrl:
        beta = torch.nn.Parameter(torch.full((data.n_users,), settings["start"], device=device))
        beta_step = torch.optim.SGD([beta], lr=settings["dual_lr"])
        power = settings["order"] / (settings["order"] - 1)

    def bound(scores, margin):
        excess = settings["weight"] * (1e-6 + torch.relu(scores - margin[:, None]))
        return margin + negatives ** (-1 / power) * torch.linalg.vector_norm(excess, power, dim=1)

    def step(u, i):
        j = torch.multinomial((~seen[u]).float(), negatives, replacement=True)
        all_users, all_items = normalize(tables[0], dim=1), normalize(tables[1], dim=1)
        positive = (all_users[u] * all_items[i]).sum(1)
        negative = torch.bmm(all_items[j], all_users[u][:, :, None]).squeeze(2)
        if drrl:
            beta_step.zero_grad()
            bound(negative.detach(), beta[u]).sum().backward()
            beta_step.step()
            loss = (torch.relu(1 - positive) + bound(negative, beta[u].detach())).mean()
        else:
            tau = settings["temperature"]
            loss = (torch.logsumexp(negative / tau, 1) - positive / tau).mean()
        model_step.zero_grad()
        loss.backward()
        model_step.step()
        loss.item()

    return tables, (users, items), step


def lightgcn(data, settings: dict, *, layers=2, dim=64, negatives=64, device="cpu"):
    """The same for SL on LightGCN, through one sparse (users + items)² matrix."""
    users, items, seen = _pairs(data, device)
    train = data.train.tocoo()
    n = data.n_users + data.n_items
    rows = np.concatenate([train.row, train.col + data.n_users])
    columns = np.concatenate([train.col + data.n_users, train.row])
    degree = np.bincount(rows, minlength=n)
    values = torch.from_numpy((degree[rows] * degree[columns]) ** -0.5).float()
    graph = torch.sparse_coo_tensor(np.stack([rows, columns]), values, (n, n)).coalesce().to(device)
    table = _table(n, dim, device)
    optimiser = torch.optim.Adam([table], lr=settings["lr"])
    tau = settings["temperature"]

    def step(u, i):
        j = torch.multinomial((~seen[u]).float(), negatives, replacement=True)
        layer, views = table, [table]
        for _ in range(layers):
            layer = torch.sparse.mm(graph, layer)
            views.append(layer)
        final = normalize(torch.stack(views).mean(0), dim=1)
        mine, theirs = final[: data.n_users], final[data.n_users :]
        positive = (mine[u] * theirs[i]).sum(1)
        negative = torch.bmm(theirs[j], mine[u][:, :, None]).squeeze(2)
        loss = (torch.logsumexp(negative / tau, 1) - positive / tau).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return table, (users, items), step


def steps(make: Callable, data, settings: dict, most: int, device="cpu") -> list[float]:
    """Seconds of each of the first `most` steps of an epoch."""
    _, (users, items), step = make(data, settings, device=device)
    times = []
    for rows in torch.randperm(len(users), device=device).split(1024)[:most]:
        start = time.perf_counter()
        step(users[rows], items[rows])
        times.append(time.perf_counter() - start)
    return times


def train(data, settings: dict, evaluate: Callable, *, epochs: int, every: int, patience: int):
    """Epochs, evaluated every few; (seconds since the start, accuracy) of each evaluation."""
    start, found = time.perf_counter(), []
    torch.manual_seed(0)
    tables, (users, items), step = mf(data, settings)
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(users)).split(1024):
            step(users[rows], items[rows])
        if epoch % every == 0:
            accuracy = evaluate(*(table.detach() for table in tables))
            found.append((time.perf_counter() - start, accuracy))
            best = max(range(len(found)), key=lambda k: found[k][1])
            if len(found) - 1 - best >= patience:
                break
    return found


def ranking(users, items, train, test, k=20, batch=1024) -> float:
    """Mean NDCG@k of the test users by cosine, train pairs masked."""
    users, items = normalize(users, dim=1), normalize(items, dim=1)
    known = [set(test[[u]].indices.tolist()) for u in range(len(users))]
    wanted = [u for u in range(len(users)) if known[u]]
    total = 0.0
    for first in range(0, len(wanted), batch):
        chunk = wanted[first : first + batch]
        scores = users[chunk] @ items.T
        for row, user in enumerate(chunk):
            scores[row, train[[user]].indices] = -math.inf
        for user, top in zip(chunk, scores.topk(k).indices.tolist(), strict=True):
            gain = sum(1 / math.log2(r + 2) for r, item in enumerate(top) if item in known[user])
            ideal = sum(1 / math.log2(r + 2) for r in range(min(k, len(known[user]))))
            total += gain / ideal
    return total / len(wanted)
