"""Strategies: what they ask, who wins, and how far they get with a judge that errs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Generator, Sequence

import pytest

from daj_lightning.judge import Adaptive, Dialogues, Knockout, RoundRobin, Selection, Strategy, Voting, play_all
from daj_lightning.judge.adaptive import Belief, Persistence
from daj_lightning.judge.selection import Answer, Game, Pair
from daj_lightning.records import DajError

Judge = Callable[[Pair], Answer]
STRATEGIES: list[Callable[..., Strategy]] = [Voting, Knockout, RoundRobin, Adaptive]


def perfect(best: int) -> Judge:
    return lambda pair: pair.index(best) if best in pair else 0


def answers_first(pair: Pair) -> Answer:
    return 0


def play(strategy: Strategy, num_candidates: int, judge: Judge, key: str = "p") -> tuple[Selection, list[Pair]]:
    asked: list[Pair] = []

    def ask(questions: list[tuple[str, Pair]]) -> list[Answer]:
        asked.extend(pair for _, pair in questions)
        return [judge(pair) for _, pair in questions]

    return play_all({key: strategy.play(num_candidates, key)}, ask)[key], asked


@pytest.mark.parametrize("kind", [Knockout, RoundRobin])
@pytest.mark.parametrize("num_candidates", [2, 3, 5, 8, 13])
def test_a_perfect_judge_finds_the_right_candidate_always(kind: type[Strategy], num_candidates: int) -> None:
    wanted = {Knockout: num_candidates - 1, RoundRobin: num_candidates * (num_candidates - 1) // 2}[kind]
    for best in range(num_candidates):
        selection, asked = play(kind(seed=best), num_candidates, perfect(best))
        assert (selection.winner, len(asked), selection.num_comparisons) == (best, wanted, wanted)
        assert selection.confidence == 1


@pytest.mark.parametrize("kind", STRATEGIES)
def test_both_orders_of_every_comparison_cost_two_and_take_the_position_out(kind: Callable[..., Strategy]) -> None:
    """A judge that always answers "the first" then gives every candidate as many wins as losses."""
    selection, asked = play(kind(both_orders=True), 4, answers_first)
    assert selection.num_comparisons == len(asked)
    assert all(asked[i] == asked[i + 1][::-1] for i in range(0, len(asked), 2))
    in_pairs = [sum(pair[0] == i for pair in asked) - sum(pair[1] == i for pair in asked) for i in range(4)]
    assert in_pairs == [0] * 4
    if kind is not Adaptive:
        assert selection.confidence <= 0.5


@pytest.mark.parametrize("kind", STRATEGIES)
def test_the_order_of_a_single_comparison_is_drawn(kind: Callable[..., Strategy]) -> None:
    firsts = [pair[0] < pair[1] for seed in range(60) for pair in play(kind(seed=seed), 3, perfect(0))[1]]
    assert 0.35 < sum(firsts) / len(firsts) < 0.65


@pytest.mark.parametrize("kind", STRATEGIES)
def test_seed_and_problem_decide_all_that_is_drawn(kind: Callable[..., Strategy]) -> None:
    judge = perfect(2)
    assert play(kind(seed=1), 6, judge) == play(kind(seed=1), 6, judge)
    assert any(play(kind(seed=1), 6, judge)[1] != play(kind(seed=s), 6, judge)[1] for s in (2, 3))
    assert any(play(kind(seed=1), 6, judge, "p")[1] != play(kind(seed=1), 6, judge, key)[1] for key in "qr")


@pytest.mark.parametrize("kind", STRATEGIES)
def test_format_errors_are_counted_give_no_vote_and_end_nothing(kind: Callable[..., Strategy]) -> None:
    selection, asked = play(kind(), 4, lambda pair: None)
    assert selection.num_invalid == selection.num_comparisons == len(asked) > 0
    assert selection.votes == (0, 0, 0, 0)
    assert selection.winner in range(4)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_below_the_wanted_confidence_the_selection_abstains(kind: Callable[..., Strategy]) -> None:
    unsure, _ = play(kind(min_confidence=0.9, both_orders=True), 4, answers_first)
    assert unsure.winner is None
    assert unsure.confidence < 0.9
    sure, _ = play(kind(min_confidence=0.2, **({"rounds": 40} if kind is Voting else {})), 4, perfect(1))
    assert sure.winner == 1


@pytest.mark.parametrize("kind", STRATEGIES)
def test_there_is_nothing_to_ask_about_one_candidate_and_nothing_to_choose_from_none(
    kind: Callable[..., Strategy],
) -> None:
    selection, asked = play(kind(min_confidence=1.0), 1, answers_first)
    assert (selection.winner, asked) == (0, [])
    with pytest.raises(DajError, match="empty"):
        play(kind(), 0, answers_first)


def test_a_round_robin_asks_about_every_pair_once() -> None:
    _, asked = play(RoundRobin(), 5, perfect(0))
    assert sorted(tuple(sorted(pair)) for pair in asked) == list(itertools.combinations(range(5), 2))


def test_dialogues_of_many_problems_are_asked_together() -> None:
    """Eight problems of eight candidates: a knockout has three rounds, and so the judge sees three lists."""
    lists: list[int] = []

    def ask(questions: list[tuple[str, Pair]]) -> list[Answer]:
        lists.append(len(questions))
        return [perfect(int(key))(pair) for key, pair in questions]

    chosen = play_all({str(k): Knockout().play(8, str(k)) for k in range(8)}, ask)
    assert lists == [8 * 4, 8 * 2, 8 * 1]
    assert [chosen[str(k)].winner for k in range(8)] == list(range(8))


class TestAdaptive:
    def test_it_stops_once_a_winner_is_settled_and_never_beyond_its_budget(self) -> None:
        judge = perfect(3)
        settled, _ = play(Adaptive(confidence=0.8), 8, judge)
        assert settled.winner == 3
        assert settled.confidence >= 0.8
        assert settled.num_comparisons < 28
        spent, _ = play(Adaptive(max_comparisons=14, confidence=1.0), 8, judge)
        assert spent.num_comparisons == 14
        odd, _ = play(Adaptive(max_comparisons=7, confidence=1.0, both_orders=True), 4, judge_of_half())
        assert odd.num_comparisons == 6

    def test_the_belief_is_that_of_bayes_rule(self) -> None:
        """Three candidates, accuracy 0.8; 0 beats 1, then 0 beats 2."""
        belief, persistence = Belief(3, 0.8), Persistence(0.0)
        belief.observe((0, 1), True, persistence)
        weights = [0.8, 0.2, 0.5]
        assert belief.probabilities() == pytest.approx([w / sum(weights) for w in weights])
        belief.observe((0, 2), True, persistence)
        weights = [0.8 * 0.8, 0.2 * 0.5, 0.5 * 0.2]
        assert belief.probabilities() == pytest.approx([w / sum(weights) for w in weights])

    def test_where_answers_repeat_a_repeat_tells_nothing(self) -> None:
        belief, copied = Belief(3, 0.8), Persistence(1.0)
        belief.observe((0, 1), True, copied)
        once = belief.probabilities()
        belief.observe((0, 1), True, copied)
        assert belief.probabilities() == pytest.approx(once)
        assert belief.information((0, 1), once, 1.0) == pytest.approx(0)
        _, asked = play(Adaptive(confidence=1.0, persistence=1.0), 6, perfect(0))
        assert len({frozenset(pair) for pair in asked}) == 15, "every pair once before any is repeated"

    @pytest.mark.parametrize("true", [0.0, 0.5, 1.0])
    def test_the_judges_persistence_is_learned_from_its_repeats(self, true: float) -> None:
        strategy = Adaptive(confidence=1.0)
        simulate(strategy, 6, trials=150, persistence=true)
        assert strategy.persistence.value == pytest.approx(true, abs=0.12)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"accuracy": 0.5}, "accuracy"),
            ({"max_comparisons": 0}, "max_comparisons"),
            ({"persistence": 2.0}, "per"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, wrong: dict[str, float], message: str) -> None:
        with pytest.raises(DajError, match=message):
            Adaptive(**wrong)  # type: ignore[arg-type]


def judge_of_half() -> Judge:
    rng = random.Random(0)
    return lambda pair: rng.choice([0, 1])


def simulate(strategy: Strategy, num_candidates: int, trials: int, persistence: float = 0.0) -> float:
    """Share of trials in which the one right candidate is found; the judge errs one time in five."""
    rng, found = random.Random(0), 0
    for trial in range(trials):
        right, last = rng.randrange(num_candidates), dict[frozenset[int], int]()

        def judge(pair: Pair, right: int = right, last: dict[frozenset[int], int] = last) -> Answer:
            names = frozenset(pair)
            if names not in last or rng.random() >= persistence:
                wrong = pair[0] if pair[1] == right else pair[1]
                last[names] = rng.choice(pair) if right not in pair else right if rng.random() < 0.8 else wrong
            return pair.index(last[names])

        found += play(strategy, num_candidates, judge, str(trial))[0].winner == right
    return found / trials


def test_at_equal_comparisons_adaptive_finds_more_than_a_round_robin() -> None:
    adaptive, all_pairs = (simulate(s, 6, trials=400) for s in (Adaptive(confidence=1.0), RoundRobin()))
    assert adaptive > all_pairs + 0.05


@pytest.mark.parametrize("most", [1, 3, 7, None])
@pytest.mark.parametrize("kind", STRATEGIES)
def test_portions_of_any_size_end_in_the_same_selections(kind: Callable[..., Strategy], most: int | None) -> None:
    """Persistence is known: otherwise what is learned of it depends on who is answered first."""
    strategy = kind(persistence=0.5) if kind is Adaptive else kind()
    wanted = {key: play(strategy, N, perfect(N // 2), key)[0] for key, N in (("a", 5), ("b", 1), ("c", 8), ("d", 2))}
    dialogues = Dialogues()
    found = {}
    for key, N in (("a", 5), ("b", 1), ("c", 8), ("d", 2)):
        if (selection := dialogues.start(key, strategy.play(N, key))) is not None:
            found[key] = selection
    best = {"a": 2, "c": 4, "d": 1}
    while dialogues:
        questions = dialogues.next(most)
        assert 0 < len(questions) <= (most or 100)
        keys = [key for key, _ in questions]
        assert keys == sorted(keys), "who was started first is asked about first, and together"
        found |= dialogues.tell(questions, [perfect(best[key])(pair) for key, pair in questions])
    assert found == wanted


def test_a_dialogue_that_leaves_is_asked_about_no_more() -> None:
    dialogues = Dialogues()
    for key in "ab":
        dialogues.start(key, RoundRobin().play(3, key))
    first = dialogues.next(4)
    assert [key for key, _ in first] == ["a", "a", "a", "b"]
    dialogues.drop("a")
    assert [key for key, _ in dialogues.next()] == ["b"] * 3
    dialogues.drop("a")
    assert len(dialogues) == 1
    assert set(dialogues.tell(dialogues.next(), [0, 0, 0])) == {"b"}
    assert not dialogues


def test_a_strategy_that_wants_nothing_this_round_is_asked_on() -> None:
    class Hesitates(Strategy):
        def lead(self, game: Game) -> Generator[list[Pair], Sequence[Answer], tuple[int, float]]:
            yield from game.compare([])
            yield from game.compare([(0, 1)])
            yield from game.compare([])
            return game.best(game.wins), 1.0

    selection, asked = play(Hesitates(), 2, perfect(1))
    assert (selection.winner, len(asked)) == (1, 1)
