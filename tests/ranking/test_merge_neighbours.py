"""Merging the hybrid's neighbours with those of co-occurrence: the stated rule against one written out pair by pair."""

import numpy as np
import pytest
from scipy import sparse

from jobs.ranking.merge_neighbours import BOTH, HYBRID, MergeRule, merge_hybrid, typical_score
from jobs.ranking.neighbours import CO_OCCURRENCE, Neighbours

ITEMS, BLOCK, DEPTH = 40, 25, 8
RULE = MergeRule(little_support=20, enough_support=5, scale=0.3)


def csr(lists, width=ITEMS):
    """Rows of (item, score), best first."""
    indptr = np.cumsum([0, *(len(row) for row in lists)])
    pairs = [pair for row in lists for pair in row]
    data, indices = np.array([s for _, s in pairs], np.float32), np.array([i for i, _ in pairs], np.int32)
    return sparse.csr_array((data, indices, indptr), shape=(len(lists), width))


def random_case(seed):
    random = np.random.default_rng(seed)

    def lists(most):
        rows = []
        for row in range(BLOCK):
            others = random.permutation(np.delete(np.arange(ITEMS), row))[: random.integers(0, most + 1)]
            scores = random.choice([0.05, 0.1, 0.2, 0.4, 0.8], len(others)).astype(np.float32)
            rows.append(sorted(zip(others.tolist(), scores.tolist(), strict=True), key=lambda p: (-p[1], p[0])))
        return csr(rows)

    found, similar = lists(DEPTH), lists(DEPTH)
    support = random.integers(1, 9, found.nnz).astype(np.int32)
    neighbours = Neighbours(found, support, np.full(found.nnz, CO_OCCURRENCE, np.int8))
    similar_support = random.integers(0, 3, similar.nnz).astype(np.int32)
    return neighbours, similar, similar_support, random.choice([0, 3, 19, 20, 500], BLOCK)


def rows_of(neighbours):
    lists = neighbours.lists
    return [
        list(zip(
            lists.indices[a:b].tolist(), lists.data[a:b].tolist(), neighbours.support[a:b].tolist(),
            neighbours.source[a:b].tolist(), strict=True,
        ))
        for a, b in zip(lists.indptr[:-1], lists.indptr[1:], strict=True)
    ]  # fmt: skip


def oracle(neighbours, similar, similar_support, users_of_item, rule, depth):
    """The rule, one item at a time, as its docstring says it."""
    answer = []
    for row, own in enumerate(rows_of(neighbours)):
        a, b = similar.indptr[row : row + 2]
        near = {
            int(i): (float(h), int(s))
            for i, h, s in zip(similar.indices[a:b], similar.data[a:b], similar_support[a:b], strict=True)
        }
        if users_of_item[row] >= rule.little_support:
            answer.append(own)
            continue
        strong = [pair for pair in own if pair[2] >= rule.enough_support]
        cap = np.nextafter(np.float32(min(p[1] for p in strong)), np.float32(0)) if strong else np.float32(np.inf)
        weak = []
        for other, score, support, _ in own:
            if support < rule.enough_support:
                w = support / rule.enough_support
                mixed = w * score + (1 - w) * rule.scale * near.get(other, (0.0, 0))[0]
                weak.append((other, min(np.float32(mixed), cap), support, BOTH if other in near else CO_OCCURRENCE))
        listed = {pair[0] for pair in own}
        weak += [(i, min(np.float32(rule.scale * h), cap), s, HYBRID) for i, (h, s) in near.items() if i not in listed]
        merged = sorted([*strong, *weak], key=lambda pair: (-pair[1], pair[0]))[:depth]
        answer.append([(i, float(score), s, source) for i, score, s, source in merged])
    return answer


@pytest.mark.parametrize("seed", range(40))
def test_the_merge_is_the_rule(seed):
    neighbours, similar, support, users = random_case(seed)
    merged = merge_hybrid(neighbours, similar, support, users, rule=RULE, depth=DEPTH)
    wanted = oracle(neighbours, similar, support, users, RULE, DEPTH)
    assert rows_of(merged) == wanted
    assert {source for row in wanted for *_, source in row} >= {CO_OCCURRENCE, HYBRID}


def test_the_cases_hold_pairs_that_both_know():
    cases = [merge_hybrid(*random_case(seed), rule=RULE, depth=DEPTH) for seed in range(40)]
    assert sum(int((case.source == BOTH).sum()) for case in cases) > 100


@pytest.mark.parametrize("seed", range(40))
def test_nothing_displaces_a_pair_that_speaks_for_itself(seed):
    neighbours, similar, support, users = random_case(seed)
    merged = rows_of(merge_hybrid(neighbours, similar, support, users, rule=RULE, depth=DEPTH))
    kept = 0
    for before, after in zip(rows_of(neighbours), merged, strict=True):
        strong = [pair for pair in before if pair[2] >= RULE.enough_support]
        assert [pair for pair in after if pair in strong] == strong  # all of them, in their order, scores unchanged
        if strong and users[merged.index(after)] < RULE.little_support:
            assert after[: len(strong)] == strong
        kept += len(strong)
        others = [pair[0] for pair in after]
        assert len(set(others)) == len(others) <= DEPTH
        assert [pair[1] for pair in after] == sorted((pair[1] for pair in after), reverse=True)
        assert all(pair[1] > 0 for pair in after)
    assert kept > 20
    assert all(row not in [pair[0] for pair in pairs] for row, pairs in enumerate(merged))


def test_a_new_item_has_the_hybrids_list_and_a_known_one_its_own():
    nothing = Neighbours(csr([[], [(3, 0.4)]]), np.array([9], np.int32), np.array([CO_OCCURRENCE], np.int8))
    similar = csr([[(5, 0.9), (6, 0.5)], [(7, 0.9)]])
    merged = merge_hybrid(nothing, similar, np.zeros(3, np.int32), np.array([0, 20]), rule=RULE, depth=DEPTH)
    new, known = rows_of(merged)
    assert [(pair[0], pair[2], pair[3]) for pair in new] == [(5, 0, HYBRID), (6, 0, HYBRID)]
    np.testing.assert_allclose([pair[1] for pair in new], [0.27, 0.15], rtol=1e-6)
    assert known == [(3, pytest.approx(0.4), 9, CO_OCCURRENCE)]


def test_the_blocks_make_no_difference():
    neighbours, similar, support, users = random_case(7)
    whole = rows_of(merge_hybrid(neighbours, similar, support, users, rule=RULE, depth=DEPTH))
    parts = []
    for first in range(0, BLOCK, 4):
        last = min(first + 4, BLOCK)
        a, b = neighbours.lists.indptr[[first, last]]
        c, d = similar.indptr[[first, last]]
        part = Neighbours(neighbours.lists[first:last], neighbours.support[a:b], neighbours.source[a:b])
        merged = merge_hybrid(part, similar[first:last], support[c:d], users[first:last], rule=RULE, depth=DEPTH)
        parts += rows_of(merged)
    assert parts == whole


def test_a_similarity_is_worth_a_typical_20th_neighbour():
    long = [(n, 1 - n / 100) for n in range(30)]
    assert typical_score(csr([long, [], long, [(1, 0.5)]])) == pytest.approx(0.81)
    assert typical_score(csr([[], []])) == 1
