"""Fusion by hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ultrafast_rag.search.fusion import accident, add_visual, convex, known_or, rrf, surely, union
from ultrafast_rag.types import Ranking


def f32(*values):
    return np.array(values, np.float32)


def ranking(*pairs):
    return Ranking(np.array([i for i, _ in pairs], np.int64), f32(*(s for _, s in pairs)))


def test_convex_is_the_weighted_sum_of_both_normalized_scores():
    # (0.6 + 1) / 1.6 = 1 and (0.2 + 1) / 1.6 = 0.75; 2 / 8 = 0.25 and 8 / 8 = 1
    np.testing.assert_allclose(convex(f32(0.6, 0.2), f32(2, 8), alpha=0.6), [0.6 + 0.4 * 0.25, 0.6 * 0.75 + 0.4], rtol=1e-6)


@pytest.mark.parametrize(("alpha", "best"), [(0.0, 1), (1.0, 0)])
def test_alpha_0_is_words_only_and_1_meaning_only(alpha, best):
    assert int(np.argmax(convex(f32(0.9, 0.1), f32(1, 5), alpha=alpha))) == best


def test_a_candidate_without_a_vector_counts_as_opposite():
    np.testing.assert_allclose(convex(f32(np.nan, 1.0), f32(4, 0), alpha=0.5), [0.5, 0.5])


def test_no_match_in_either_leg_divides_by_nothing():
    assert convex(f32(), f32(), alpha=0.5).shape == (0,)
    np.testing.assert_allclose(convex(f32(0.5), f32(0), alpha=0.5), [0.5])


def test_rrf_sums_reciprocal_ranks():
    first, second = ranking((7, 9.0), (8, 8.0)), ranking((8, 0.9))
    np.testing.assert_allclose(rrf(np.array([7, 8, 9]), [first, second], rrf_k=60), [1 / 61, 1 / 62 + 1 / 61, 0], rtol=1e-6)


def test_union_keeps_each_id_once_in_order_of_appearance():
    assert union(np.array([5, 3]), np.array([3, 9, 5])).tolist() == [5, 3, 9]


def test_only_ids_that_a_ranking_lacks_are_scored():
    asked = []

    def score(ids):
        asked.append(ids.tolist())
        return ids.astype(np.float32) / 10

    scores = known_or(ranking((7, 9.0), (3, 8.0)), np.array([3, 5, 7, 9]), score)
    assert scores.tolist() == pytest.approx([8.0, 0.5, 9.0, 0.9])
    assert asked == [[5, 9]]
    assert known_or(ranking(), np.array([4]), score).tolist() == pytest.approx([0.4])


def test_clip_raises_the_picture_that_stands_out_and_no_text():
    seen = f32(*([0.2] * 15), 0.36)  # (0.36 - mean) / std = 3.87: sure
    raised = add_visual(f32(0.95, 0.3, 0.7), f32(np.nan, 0.36, 0.2), seen, alpha=0.65)
    assert raised[0] == pytest.approx(0.95)
    assert raised[1] == pytest.approx(0.65 + 0.35, abs=0.01)
    assert raised[2] == pytest.approx(0.7)


@pytest.mark.reference
@pytest.mark.parametrize(("pictures", "looked_at"), [(5, 5), (30, 30), (90, 90), (4000, 100)])
def test_standing_out_by_accident_is_as_rare_as_it_is_said_to_be(pictures, looked_at):
    """Cosines of a question that is about none of the pictures; whatever the model's band, no constant of ours in it."""
    draw = np.random.default_rng(pictures)
    chances = []
    for _ in range(1500):
        cosines = np.sort(draw.normal(0.2, 0.013, pictures))[-looked_at:].astype(np.float32)
        chances.append(accident(cosines, all_seen=pictures == looked_at))
    for level in (0.05, 0.2):
        found = np.mean(np.array(chances) < level)
        assert found <= 1.35 * level
        assert found >= 0.65 * level or pictures != looked_at  # an exponential tail is longer than a normal's: careful, not exact


def test_how_sure_a_picture_is_follows_the_published_bound():
    assert [surely(p) for p in (1.0, 0.5, 1 / np.e)] == [0.0, 0.0, pytest.approx(0.5)]
    assert surely(0.05) == pytest.approx(0.711, abs=0.001)  # odds of 2.46 to 1: Sellke et al., table 1
    assert surely(0.01) == pytest.approx(0.889, abs=0.001)
    assert surely(0.0) == 1.0


def test_of_one_or_two_pictures_nothing_is_known():
    assert surely(accident(f32(0.3))) == surely(accident(f32(0.3, 0.1))) == pytest.approx(0.5)


def test_clip_leaves_the_order_when_no_picture_stands_out():
    seen = f32(*np.linspace(0.18, 0.22, 16))
    scores = f32(0.95, 0.7)
    np.testing.assert_allclose(add_visual(scores, f32(np.nan, 0.22), seen, alpha=0.65), scores, rtol=1e-6)
