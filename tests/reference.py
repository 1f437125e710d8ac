"""The published formulas as plain loops over single numbers: slow, obvious, and independent of the library."""

import math

import torch


def dot(a, b):
    total = torch.zeros((), dtype=a.dtype)
    for k in range(len(a)):
        total = total + a[k] * b[k]
    return total


def cos(a, b):
    return dot(a, b) / (torch.sqrt(dot(a, a)) * torch.sqrt(dot(b, b)))


def softmax(logits):
    exps = [torch.exp(z) for z in logits]
    total = sum(exps)
    return [e / total for e in exps]


def bpr(u, pos, neg):
    terms = [-torch.log(1 / (1 + torch.exp(-(dot(u[b], pos[b]) - dot(u[b], neg[b]))))) for b in range(len(u))]
    return sum(terms) / len(terms)


def teacher(su, si, tau, floor):
    p, w = [], []
    for u in range(len(su)):
        row = softmax([cos(su[u], si[j]) / tau for j in range(len(si))])
        entropy = -sum(x * torch.log(x) for x in row)
        p.append(torch.stack(row))
        w.append(min(max(float(1 - entropy / math.log(len(si))), floor), 1.0))
    return torch.stack(p), torch.tensor(w, dtype=su.dtype)


def sdr(u, items, p, w, tau):
    total = 0.0
    for b in range(len(u)):
        q = softmax([cos(u[b], items[j]) / tau for j in range(len(items))])
        total = total + w[b] * -sum(p[b, j] * torch.log(q[j]) for j in range(len(items)))
    return total / len(u)


def infonce(anchors, others, positive, tau):
    total = 0.0
    for b in range(len(anchors)):
        logits = [cos(anchors[b], others[j]) / tau for j in range(len(others))]
        total = total - torch.log(torch.exp(logits[positive[b]]) / sum(torch.exp(z) for z in logits))
    return total / len(anchors)


def s2dr(view1, view2, users, items, tau):
    (u1, i1), (u2, i2) = view1, view2
    du, di = sorted(set(users)), sorted(set(items))
    same_u = infonce([u1[u] for u in du], [u2[u] for u in du], range(len(du)), tau)
    same_i = infonce([i1[i] for i in di], [i2[i] for i in di], range(len(di)), tau)
    n = range(len(users))
    cross = 0.5 * infonce([u1[u] for u in users], [i2[i] for i in items], n, tau) + 0.5 * infonce(
        [u2[u] for u in users], [i1[i] for i in items], n, tau
    )
    return same_u + same_i + cross


def simgcl(u1, u2, i1, i2, users, items, weight, tau):
    anchors = lambda x, ids: [x[k] for k in ids]  # noqa: E731
    return weight * (
        infonce(anchors(u1, users), list(u2), users, tau) + infonce(anchors(i1, items), list(i2), items, tau)
    )


def propagate(interactions, user, item, steps, self_loops=False):
    """Layers 0..steps of (user rows, item rows), by looping over neighbours."""
    m, n = len(user), len(item)
    loop = 1 if self_loops else 0
    du = [sum(interactions[u][i] for i in range(n)) + loop for u in range(m)]
    di = [sum(interactions[u][i] for u in range(m)) + loop for i in range(n)]
    layers = [(list(user), list(item))]
    for _ in range(steps):
        us, its = layers[-1]
        nu = [
            sum(
                (its[i] / math.sqrt(du[u] * di[i]) for i in range(n) if interactions[u][i]),
                us[u] * (loop / du[u] if loop else 0),
            )
            for u in range(m)
        ]
        ni = [
            sum(
                (us[u] / math.sqrt(du[u] * di[i]) for u in range(m) if interactions[u][i]),
                its[i] * (loop / di[i] if loop else 0),
            )
            for i in range(n)
        ]
        layers.append((nu, ni))
    return layers
