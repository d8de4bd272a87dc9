"""Choose an item model and its settings on parts held back from the training data.

A walk, not a grid: a handful of starts, then one setting of the best changed at a time while that helps. What is
simpler stays unless the other is clearly better. Nothing looks at a clock: how many candidates are tried follows from
the size of the data, so the same data gives the same choice on any machine.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy import sparse

from jobs.ranking import ease
from jobs.ranking.item_model import fit
from jobs.ranking.metrics import RankingFigures, RankingSums, UserFigures, measure_users
from jobs.ranking.rank_users import fill_up, lists_of, nearest, rank_users
from jobs.ranking.validation import Fold, Interactions, Weighting
from schemas.item_models import COSINE, CooccurrenceModel, EaseModel, ItemModelSettings

AT = 20
# How deep lists are while choosing; the chosen model's may be deeper.
DEPTH = 200
# Relative gain in recall and ndcg together that a change has to bring: below it is what chance brings as well.
LEAST_GAIN = 0.003
# Standard errors of that gain, over the users measured, that fading starts have to bring. Single steps are not held to
# it: on real data it kept some that were good away, and lost more than chance does.
LEAST_ERRORS = 2.0
# Pairs of items that all candidates together may cost: 9 candidates on Gowalla's million interactions.
WORK = 3.5e9
FEWEST, MOST = 8, 30

STARTS: tuple[CooccurrenceModel, ...] = (
    CooccurrenceModel(item_exponent=0.9, other_exponent=0.2, sharpening=1.0, sharpened=DEPTH),
    CooccurrenceModel(user_exponent=0.5, other_exponent=0.5),
    COSINE,
    CooccurrenceModel(user_exponent=0.0, other_exponent=0.0, popularity=1.0),
    CooccurrenceModel(item_exponent=1.0, user_exponent=0.5, other_exponent=0.3),
)
EASE_STARTS: tuple[EaseModel, ...] = (EaseModel(regularisation=4.0), EaseModel(regularisation=0.5))
SHARES = (0.15, 0.35, 0.6)
SHARPENINGS = (0.5, 1.0, 2.0)
POPULARITIES = (0.1, 0.3, 1.0, 3.0)
HALF_LIVES = (0.5, 0.15, 0.05)
# How a user's history fades in the starts that are tried once more where there are times: what is best with all of a
# history and what is best with its end are far apart, and no way of single steps leads from one to the other.
START_FADING = Weighting(half_life=0.15)
# Listed pairs that are kept of what was fitted last, for recipes that differ only in how histories speak: 320 MB.
KEPT_PAIRS = 40_000_000
NEIGHBOURS = (50, 20)


class Recipe(BaseModel):
    """A model, what it learns from, and how a user's history speaks when items are ranked for them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ItemModelSettings
    learn: Weighting = Weighting()
    history: Weighting = Weighting()
    # How many of each item's correlated items speak, those below 0 left out; None: all listed ones, with their sign.
    neighbours: int | None = None


@dataclass(frozen=True)
class Trial:
    """A candidate and how good it was, over all folds."""

    recipe: Recipe
    figures: RankingFigures
    by_user: UserFigures  # all folds' users, one fold after the other


@dataclass(frozen=True)
class Choice:
    """The chosen recipe and all that was tried, in order."""

    recipe: Recipe
    trials: tuple[Trial, ...]


def choose(folds: list[Fold], *, threads: int = 1, starts: Iterable[CooccurrenceModel] = STARTS) -> Choice:
    """Walk from the starts to the recipe that finds most of what the folds hold back.

    Without a fold (no user has two items) there is nothing to choose by: the first start is taken.
    """
    starts = list(starts)
    if not folds:
        return Choice(Recipe(model=starts[0]), ())
    walk = _Walk(folds, threads)
    tries = _tries(_cooccurrence_cost(folds), FEWEST)
    timed = any(fold.learn.last_at is not None for fold in folds)
    best = walk.best_of(Recipe(model=model) for model in starts)
    if timed:
        best = walk.clearly_better(best, walk.best_of(Recipe(model=model, history=START_FADING) for model in starts))
    best = walk.climb(best, _cooccurrence_steps, max(tries - len(starts), 3))
    solvable = all(ease.fits(*fold.learn.shape) for fold in folds)
    ease_tries = _tries(_ease_cost(folds), 0) if solvable else 0
    if ease_tries:
        fadings = (Weighting(),) if best.history == Weighting() else (Weighting(), best.history)
        solved = walk.best_of(
            Recipe(model=model, history=history) for model in EASE_STARTS[:ease_tries] for history in fadings
        )
        solved = walk.climb(solved, _ease_steps, ease_tries - len(EASE_STARTS))
        blends = list(_blends(solved, best))[: max(ease_tries - len(EASE_STARTS), 0)]
        best = walk.better(best, walk.best_of([solved, *blends]))
    if isinstance(best.model, EaseModel):
        tries = ease_tries
    best = walk.climb(best, _popularity_steps, max(tries // 3, 2))
    if timed:
        best = walk.climb(best, _fading_steps, max(tries // 3, 5))
    if any((fold.learn.times > 1).any() for fold in folds):
        best = walk.climb(best, _repeat_steps, 2)
    best = walk.climb(best, _neighbour_steps, len(NEIGHBOURS))
    return Choice(best, tuple(walk.trials.values()))


def ranked_by(
    recipe: Recipe, learn: Interactions, users: npt.NDArray[np.int64], *, depth: int, n: int, threads: int = 1
) -> sparse.csr_array:
    """Fit a recipe and rank for some users; short lists are filled with what is popular."""
    model = fit(learn.matrix(recipe.learn), recipe.model, threads=threads)
    return _ranked_from(lists_of(model, learn.shape[1], depth, threads=threads), recipe, learn, users, n, threads)


def _ranked_from(
    lists: sparse.csr_array, recipe: Recipe, learn: Interactions, users: npt.NDArray[np.int64], n: int, threads: int
) -> sparse.csr_array:
    if recipe.neighbours is not None:
        lists = nearest(lists, recipe.neighbours)
    history = learn.matrix(recipe.history)[users]
    popularity = np.bincount(learn.item, minlength=learn.shape[1]).astype(np.float64)
    return fill_up(rank_users(history, lists, n, threads=threads), history, popularity, n, threads=threads)


def _tries(cost: float, fewest: int) -> int:
    """Say how many candidates of a kind the data's size allows."""
    return int(np.clip(WORK / max(cost, 1.0), fewest, MOST))


def _cooccurrence_cost(folds: list[Fold]) -> float:
    """Count the pairs of items that are multiplied, and those that are kept, which cost as much as 40."""
    cost = 0.0
    for fold in folds:
        pairs = float((np.bincount(fold.learn.user).astype(np.float64) ** 2).sum())
        cost += pairs + 40.0 * min(pairs, DEPTH * fold.learn.shape[1])
    return cost


def _ease_cost(folds: list[Fold]) -> float:
    """Count what an inverse costs in the same unit (1/600 a multiplication), and looking for the best of dense rows."""
    shapes = [fold.learn.shape for fold in folds]
    return float(sum(min(users, items) ** 3 / 600 + 4.0 * items**2 for users, items in shapes))


@dataclass
class _Walk:
    folds: list[Fold]
    threads: int
    trials: dict[Recipe, Trial] = field(default_factory=dict)
    # The lists of the fits made last, by what they depend on: one for each fold.
    lists: dict[tuple[ItemModelSettings, Weighting], list[sparse.csr_array]] = field(default_factory=dict)

    def score(self, recipe: Recipe) -> float:
        """Recall and ndcg together, each in units of the first trial's."""
        return float(self._of_users(recipe).mean())

    def _of_users(self, recipe: Recipe) -> npt.NDArray[np.float64]:
        """Recall and ndcg of each user together, in units of the first trial's means."""
        found = self.trials.get(recipe)
        if found is None:
            found = self.trials[recipe] = self._measure(recipe)
        first = next(iter(self.trials.values())).figures
        return found.by_user.recall / max(first.recall, 1e-9) + found.by_user.ndcg / max(first.ndcg, 1e-9)

    def _measure(self, recipe: Recipe) -> Trial:
        sums: RankingSums | None = None
        parts: list[UserFigures] = []
        for fold, lists in zip(self.folds, self._lists_of(recipe), strict=True):
            ranked = _ranked_from(lists, recipe, fold.learn, fold.users, AT, self.threads)
            known_by = np.bincount(fold.learn.item, minlength=fold.learn.shape[1]) / max(fold.learn.shape[0], 1)
            found, by_user = measure_users(ranked, fold.truth, AT, known_by)
            sums = found if sums is None else sums + found
            parts.append(by_user)
        if sums is None:
            raise ValueError("no fold to measure on, expected at least one")
        recall, ndcg = (np.concatenate(side) for side in zip(*((p.recall, p.ndcg) for p in parts), strict=True))
        return Trial(recipe, sums.figures(), UserFigures(recall, ndcg))

    def _lists_of(self, recipe: Recipe) -> list[sparse.csr_array]:
        """Fit on each fold, unless it was done a short while ago."""
        of = recipe.model, recipe.learn
        found = self.lists.pop(of, None)
        if found is None:
            found = [
                lists_of(
                    fit(fold.learn.matrix(recipe.learn), recipe.model, threads=self.threads),
                    fold.learn.shape[1], DEPTH, threads=self.threads,
                )
                for fold in self.folds
            ]  # fmt: skip
        self.lists[of] = found
        while len(self.lists) > 1 and sum(part.nnz for kept in self.lists.values() for part in kept) > KEPT_PAIRS:
            del self.lists[next(iter(self.lists))]
        return found

    def best_of(self, recipes: Iterable[Recipe]) -> Recipe:
        best: Recipe | None = None
        for recipe in recipes:
            self.score(recipe)  # in the order given: the first trial is the unit of all
            best = recipe if best is None else self.better(best, recipe)
        if best is None:
            raise ValueError("no candidate to choose from, expected at least one")
        return best

    def better(self, simple: Recipe, other: Recipe) -> Recipe:
        """Give the other if it is better by more than LEAST_GAIN."""
        return other if self.score(other) > self.score(simple) * (1 + LEAST_GAIN) else simple

    def clearly_better(self, simple: Recipe, other: Recipe) -> Recipe:
        """Give the other if it is better, and by more than what the draw of the users makes of nothing."""
        return other if self.better(simple, other) is other and self.beyond_chance(simple, other) else simple

    def beyond_chance(self, simple: Recipe, other: Recipe) -> bool:
        """Tell whether the gain is more than LEAST_ERRORS standard errors."""
        gain = self._of_users(other) - self._of_users(simple)
        # A user who is measured in three folds is still one user.
        of_user = np.bincount(np.concatenate([fold.users for fold in self.folds]), gain - gain.mean())
        return bool(gain.sum() > LEAST_ERRORS * np.linalg.norm(of_user))

    def climb(self, best: Recipe, steps: Callable[[Recipe], Iterator[Recipe]], tries: int) -> Recipe:
        """Change one setting at a time while that helps."""
        moved = True
        while moved:
            moved = False
            for step in steps(best):
                if step in self.trials:
                    continue
                if tries <= 0:
                    return best
                tries -= 1
                if self.better(best, step) is step:
                    best, moved = step, True
                    break
        return best


def _with(recipe: Recipe, **changes: object) -> Recipe:
    model = recipe.model.model_dump() | changes
    return Recipe.model_validate(recipe.model_dump() | {"model": model})


def _cooccurrence_steps(recipe: Recipe) -> Iterator[Recipe]:
    """One exponent up or down, or sharper."""
    model = recipe.model
    if not isinstance(model, CooccurrenceModel):
        return
    for sharpening in SHARPENINGS:
        if sharpening in (model.sharpening * 2, model.sharpening / 2) or model.sharpening == 0:
            yield _with(recipe, sharpening=sharpening, sharpened=DEPTH)
    for name, step in (("item_exponent", 0.2), ("user_exponent", 0.5), ("other_exponent", 0.1)):
        for value in (getattr(model, name) - step, getattr(model, name) + step):
            if 0 <= round(value, 2) <= 1.5:
                yield _with(recipe, **{name: round(value, 2)})


def _ease_steps(recipe: Recipe) -> Iterator[Recipe]:
    """Twice or half the regularisation, and users weighed otherwise."""
    model = recipe.model
    if isinstance(model, EaseModel):
        for factor in (2.0, 0.5):
            yield _with(recipe, regularisation=model.regularisation * factor)
        for exponent in (0.5, 1.0):
            yield _with(recipe, user_exponent=exponent)


def _blends(solved: Recipe, cooccurrence: Recipe) -> Iterator[Recipe]:
    for share in SHARES:
        yield _with(solved, cooccurrence=cooccurrence.model.model_dump(), cooccurrence_share=share)


def _popularity_steps(recipe: Recipe) -> Iterator[Recipe]:
    """More or less popularity."""
    place = int(np.searchsorted(POPULARITIES, recipe.model.popularity))
    for near in (place, place - 1) if recipe.model.popularity == 0 else (place + 1, place - 1):
        if 0 <= near < len(POPULARITIES):
            yield _with(recipe, popularity=POPULARITIES[near])


def _neighbour_steps(recipe: Recipe) -> Iterator[Recipe]:
    """Fewer of each item's correlated items: what is said of the near ones is trusted more."""
    fewer = [n for n in NEIGHBOURS if recipe.neighbours is None or n < recipe.neighbours]
    if fewer:
        yield recipe.model_copy(update={"neighbours": fewer[0]})


def _repeat_steps(recipe: Recipe) -> Iterator[Recipe]:
    """Let repeated interest count more: in what is learned, or in what is known of a user."""
    for name in ("learn", "history"):
        weighting = getattr(recipe, name)
        yield recipe.model_copy(update={name: weighting.model_copy(update={"repeats": not weighting.repeats})})


def _fading_steps(recipe: Recipe) -> Iterator[Recipe]:
    """Let interest fade: in what is known of a user, or in what is learned."""
    for name in ("history", "learn"):
        weighting = getattr(recipe, name)
        for half_life in (*HALF_LIVES, 0.0):
            yield recipe.model_copy(update={name: weighting.model_copy(update={"half_life": half_life})})
