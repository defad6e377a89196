"""Random rules, and a slow, obvious implementation of them: one user, one place, one item after another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.inference.reranking import Request
from recsys.inference.rules import RULE_KINDS, Rule, RuleSet
from recsys.inference.variety import Variety


@dataclass(frozen=True)
class Case:
    """Scores, rules and a request; `width` items come at once."""

    scores: NDArray[np.float32]
    rules: RuleSet
    request: Request
    width: int


def random_rules(generator: np.random.Generator, users: int = 4, most_items: int = 300) -> Case:
    """A few rules of all kinds, some for some users, with or without variety."""
    items = int(generator.integers(3, most_items))
    ids = [f"u{user}" for user in range(users)]
    rules = [_random_rule(generator, items, ids) for _ in range(generator.integers(0, 6))]
    variety = None
    if generator.random() < 0.5:
        vectors = (generator.random((items, 5)) < 0.4).astype(np.float32)
        variety = Variety(vectors, float(generator.choice([0.0, 0.3, 0.8])), bool(generator.random() < 0.5))
    scores = generator.normal(size=(users, items)).astype(np.float32)
    if generator.random() < 0.3:
        scores = scores.round(1)  # equal scores
    history = csr_matrix((generator.random((users, items)) < 0.1).astype(np.float32))
    allowed = generator.random(items) < 0.9 if generator.random() < 0.5 else None
    request = Request(pa.array(ids), history, int(generator.integers(1, 15)), history, allowed)
    return Case(scores, RuleSet(tuple(rules), variety), request, int(generator.choice([7, 1000])))


def _random_rule(generator: np.random.Generator, items: int, ids: list[str]) -> Rule:
    kind = RULE_KINDS[generator.integers(len(RULE_KINDS))]
    chosen = generator.random(items) < generator.choice([0.02, 0.3, 0.9])
    users = Vocabulary.of(sorted(generator.choice(ids, 2, replace=False))) if generator.random() < 0.3 else None
    if kind == "boost":
        return Rule("boost", "boost", chosen, users, strength=float(generator.choice([-0.5, 0.3, 2.0])))
    if kind == "promote":
        places = tuple(sorted(int(place) for place in generator.choice(np.arange(1, 12), 2, replace=False)))
        if generator.random() < 0.5:
            return Rule("promote", "promote", chosen, users, share=float(generator.choice([0.1, 0.25, 0.5])))
        return Rule("promote", "promote", chosen, users, places=places)
    if kind == "cap":
        groups = csr_matrix((generator.random((items, 4)) < 0.3).astype(np.float32))
        return Rule("cap", "cap", np.diff(groups.indptr) > 0, users, groups=groups, most=int(generator.integers(1, 4)))
    return Rule(kind, kind, chosen, users)


def slow_list(case: Case, user: int, found: NDArray[np.int32]) -> list[int]:
    """The list of a user. Where variety gives two items nearly one value, that of `found` is taken."""
    request, rules = case.request, [rule for rule in case.rules.rules if _is_for(rule, case.request.users[user])]
    scores = {item: float(score) for item, score in enumerate(case.scores[user])}
    for item in request.history[user].indices if request.masked is not None else []:
        scores.pop(int(item), None)
    if request.allowed is not None:
        scores = {item: score for item, score in scores.items() if request.allowed[item]}
    best = sorted(scores.values(), reverse=True)[:50]
    spread = np.float32(best[0]) - np.float32(best[-1]) if best else np.float32(0)
    for rule in rules:
        if rule.kind == "exclude":
            scores = {item: score for item, score in scores.items() if not rule.items[item]}
        if rule.kind == "only":
            scores = {item: score for item, score in scores.items() if rule.items[item]}
        if rule.kind == "boost":
            add = spread * np.float32(rule.strength)
            scores = {item: float(np.float32(s) + add) if rule.items[item] else s for item, s in scores.items()}
    order = sorted(scores, key=lambda item: (-scores[item], item))
    pool = order[: max(50, request.n)]
    listed: list[int] = []
    for place in range(1, min(request.n, case.scores.shape[1]) + 1):
        fits = [item for item in order if item not in listed and all(_has_room(r, listed, item) for r in rules)]
        for rule in rules:
            own = [item for item in fits if rule.items[item]]
            if rule.kind == "promote" and own and _has_place(rule, place, listed):
                fits = own
                break
        if not fits:
            break
        listed.append(_choose(case, user, fits, pool, scores, listed, int(found[len(listed)])))
    return listed + [-1] * (min(request.n, case.scores.shape[1]) - len(listed))


def _is_for(rule: Rule, user: pa.Scalar) -> bool:
    return rule.users is None or user.as_py() in rule.users.ids.to_pylist()


def _has_room(rule: Rule, listed: list[int], item: int) -> bool:
    if rule.kind != "cap" or rule.groups is None:
        return True
    table = rule.groups.toarray() > 0
    return all(sum(table[other, group] for other in listed) < rule.most for group in np.flatnonzero(table[item]))


def _has_place(rule: Rule, place: int, listed: list[int]) -> bool:
    return place in rule.places or sum(rule.items[item] for item in listed) < math.floor(rule.share * place + 1e-9)


def _choose(
    case: Case, user: int, fits: list[int], pool: list[int], scores: dict[int, float], listed: list[int], found: int
) -> int:
    """The first of the best; with variety the one of the highest value in the pool."""
    variety, able = case.rules.variety, [item for item in fits if item in pool]
    if variety is None or not able:
        return fits[0]
    low, high = scores[pool[-1]], scores[pool[0]]
    values = {}
    for item in able:
        relevance = (scores[item] - low) / (high - low) if high > low else 0.0
        penalty = _divergence(case, user, listed, item) if variety.calibrated else _likeness(variety, listed, item)
        values[item] = (1 - variety.weight) * relevance - variety.weight * penalty
    top = max(values.values())
    near = [item for item in able if values[item] > top - 1e-4]
    return found if found in near else near[0]


def _likeness(variety: Variety, listed: list[int], item: int) -> float:
    """The mean cosine with the items of the list."""
    return sum(_cosine(variety.vectors[item], variety.vectors[other]) for other in listed) / max(1, len(listed))


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def _divergence(case: Case, user: int, listed: list[int], item: int) -> float:
    """KL(p, q) without the part that is the same for all items, q = .99 q + .01 p."""
    assert case.rules.variety is not None
    vectors = case.rules.variety.vectors
    shares = vectors / np.maximum(vectors.sum(axis=1, keepdims=True), 1)
    wanted = shares[case.request.history[user].indices].sum(axis=0)
    wanted = wanted / max(wanted.sum(), 1e-30)
    own = shares[[*listed, item]].mean(axis=0)
    mixed = 0.99 * own + 0.01 * wanted
    return -float(sum(p * math.log(q) for p, q in zip(wanted, mixed, strict=True) if p > 0))
