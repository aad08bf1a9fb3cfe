"""From judges and candidates to an `Evaluation`: every number of the report, and none of its looks."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from daj_lightning.data.jsonl import sha256_of
from daj_lightning.evaluation.failures import failures
from daj_lightning.evaluation.field import Field
from daj_lightning.evaluation.judges import Answered, BothOrders, Rater, Scored
from daj_lightning.evaluation.judgments import read_judgments, read_selections
from daj_lightning.evaluation.paired_tests import mcnemar, paired_bootstrap
from daj_lightning.evaluation.pairwise import PairAnswer, PairwiseAccuracy, is_right
from daj_lightning.evaluation.pass_at_1 import GapRecovered
from daj_lightning.evaluation.peers import read_labelled_pairs, read_scores
from daj_lightning.evaluation.ranking import Ndcg, Transitivity
from daj_lightning.evaluation.replay import by_num_candidates, curve, passing
from daj_lightning.evaluation.results import Evaluation, JudgeResult, PairedTest, TrainingSample, WeightHistory
from daj_lightning.evaluation.score import Score
from daj_lightning.records import DajError

MCNEMAR = "McNemar, exact"
BOOTSTRAP = "paired bootstrap over problems"
CLUSTERING = "clustering by output"


def evaluate(
    title: str,
    field: Field | None,
    judges: Sequence[Rater],
    facts: Mapping[str, str],
    clusters: Mapping[str, int] | None = None,
    weights: WeightHistory | None = None,
    singled_out: tuple[Sequence[TrainingSample], Sequence[TrainingSample]] = ((), ()),
) -> Evaluation:
    """Measure all judges on the same problems.

    Args:
        field: the problems; None: all judges stand on their own.
        judges: the first is the one that the page is about.
        facts: where things came from; what is missing is added.
        clusters: problem id -> the candidate that clustering by output takes, where programs were executed.
        singled_out: helpful and harmful training samples.
    """
    if field is None and not judges:
        raise DajError("nothing to evaluate: give --data (or --problems, --candidates and --verdicts), or --pairs.")
    here = [judge for judge in judges if judge.field is not None]
    baselines = field.baselines() if field else {}
    if field and clusters is not None:
        values = {name: float(field.passed(name)[i]) for name, i in clusters.items()}
        baselines[CLUSTERING] = field.pass_at_1(values)
    noted = {f"{judge.name}: note {k}": note for judge in judges for k, note in enumerate(judge.notes, start=1)}
    return Evaluation(
        title=title,
        facts={**facts, **(field.facts() if field else {}), **noted, **versions()},
        baselines=baselines,
        judges=[result(judge) for judge in judges],
        tests=[*tests(here), *tests([judge for judge in judges if judge.field is None])],
        by_num_candidates=by_num_candidates(field, here) if field else {},
        weights=weights,
        helpful=singled_out[0],
        harmful=singled_out[1],
        failures=failures(judges),
    )


def versions() -> dict[str, str]:
    return {"versions": f"daj-lightning {version('daj-lightning')}, Python {platform.python_version()}"}


def result(judge: Rater) -> JudgeResult:
    """All numbers of one judge; those of Best-of-N only where it had candidates to choose from."""
    pairwise = PairwiseAccuracy()
    pairwise.update(judge.pair_answers())
    transitivity, ndcg = Transitivity(), Ndcg()
    transitivity.update(judge.votes())
    scores = {**pairwise.scores(), **transitivity.scores()}
    field = judge.field
    if field is None or not judge.chooses():
        return JudgeResult(judge.name, judge.origin, {}, {}, scores)
    ranked = {name: own for name in field.graded if (own := judge.strengths(name)) is not None}
    ndcg.update(list(ranked), list(ranked.values()), [field.passed(name) for name in ranked])
    values = picked(judge)
    return JudgeResult(
        judge.name,
        judge.origin,
        pass_at_1=field.pass_at_1(values),
        gap_recovered=gap_recovered(field, values),
        pairwise={**scores, **ndcg.scores()},
        curve=curve(judge),
    )


def picked(judge: Rater) -> dict[str, float]:
    """problem id -> whether (how probably) the judge's pick passes; none of a judge that does not pick."""
    if judge.field is None or not judge.chooses():
        return {}
    picks = {name: judge.pick(name) for name in judge.field.graded}
    return {name: passing(judge.field, name, pick) for name, pick in picks.items() if pick is not None}


def gap_recovered(field: Field, values: Mapping[str, float]) -> dict[str, Score]:
    """Of the picks' pass@1, problem by problem."""
    metric = GapRecovered()
    passed = [field.passed(name) for name in values]
    metric.update(
        list(values),
        [field.difficulty[name] for name in values],
        list(values.values()),
        [sum(own) / len(own) for own in passed],
        [float(any(own)) for own in passed],
    )
    return metric.scores()


def tests(judges: Sequence[Rater]) -> list[PairedTest]:
    """The first judge against every other one, on the questions that both answered."""
    found: list[PairedTest] = []
    for other in judges[1:]:
        found += _on_pairs(judges[0], other)
        found += _on_problems(judges[0], other)
    return found


def _on_pairs(first: Rater, second: Rater) -> list[PairedTest]:
    """McNemar's test of the pairs that each judge knows, its answers to a pair together."""
    answers = [_by_pair(first), _by_pair(second)]
    common = sorted(answers[0].keys() & answers[1].keys())
    if not common:
        return []
    differences: dict[str, list[float]] = {}
    only = [0, 0]
    for pair in common:
        a, b = (of[pair] for of in answers)
        if a[0].right != b[0].right:
            raise DajError(f"{first.name} and {second.name} do not agree on which of pair {pair!r} is right.")
        knows = is_right(a), is_right(b)
        only[0] += knows == (True, False)
        only[1] += knows == (False, True)
        differences.setdefault(a[0].problem, []).append(float(knows[0]) - float(knows[1]))
    score, _ = paired_bootstrap(list(differences.values()))
    return [PairedTest(first.name, second.name, MCNEMAR, score, mcnemar(*only))]


def _by_pair(judge: Rater) -> dict[str, list[PairAnswer]]:
    found: dict[str, list[PairAnswer]] = {}
    for answer in judge.pair_answers():
        found.setdefault(answer.pair, []).append(answer)
    return found


def _on_problems(first: Rater, second: Rater) -> list[PairedTest]:
    """pass@1 of the two picks, problem by problem."""
    ours, theirs = picked(first), picked(second)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return []
    score, p_value = paired_bootstrap([[ours[name] - theirs[name]] for name in common])
    return [PairedTest(first.name, second.name, BOOTSTRAP, score, p_value)]


def read_judges(
    field: Field | None,
    judgments: Sequence[str] = (),
    scores: Sequence[str] = (),
    pairs: Sequence[str] = (),
    pairs_source: str = "",
    selections: Sequence[str] = (),
) -> tuple[list[Rater], dict[str, str]]:
    """Judges from NAME=FILE arguments, in that order, and each file with its hash.

    Raises:
        DajError: two judges of one name, judgments without candidates, or a file that is wrong.
    """
    if (judgments or scores or selections) and field is None:
        raise DajError(
            "--judgments, --selections and --scores are about candidates whose verdicts are known: give --data, or "
            "--problems, --candidates and --verdicts. A both-order file stands on its own (--pairs)."
        )
    judges: list[Rater] = []
    files: dict[str, str] = {}
    picks = dict(map(name_and_file, selections))
    if len(picks) < len(selections):
        raise DajError("--selections: two files of one name. A judge has one file of selections.")

    def answered(name: str, path: str, field: Field) -> Rater:
        answers = read_judgments(path)
        made_by = sorted({answer.made_by for answer in answers if answer.made_by})
        origin = f"judgments {path}, made by {', '.join(made_by)}" if made_by else f"judgments {path}"
        if name not in picks:
            return Answered(name, origin, field, answers)
        chosen = picks.pop(name)
        files[f"selections of {name}"] = stamp(chosen)
        return Answered(name, f"{origin}; selections {chosen}", field, answers, read_selections(chosen))

    def scored(name: str, path: str, field: Field) -> Rater:
        return Scored(name, f"scores {path}", field, read_scores(path))

    readers: list[tuple[Sequence[str], Callable[[str, str, Field], Rater]]] = [(judgments, answered), (scores, scored)]
    for given, read in readers:
        for name, path in map(name_and_file, given):
            assert field is not None
            judges.append(read(name, path, field))
            files[f"file of {name}"] = stamp(path)
    if picks:
        raise DajError(
            f"--selections {next(iter(picks))}=... is of no judge of --judgments: a selection stands beside the "
            f"judgments that it was made from, under the same name."
        )
    for name, path in map(name_and_file, pairs):
        rows = read_labelled_pairs(path, pairs_source)
        judges.append(BothOrders(name, f"both orders {path}, {len(rows)} pairs", rows))
        files[f"file of {name}"] = stamp(path)
    twice = sorted({judge.name for judge in judges if [other.name for other in judges].count(judge.name) > 1})
    if twice:
        raise DajError(f"two judges are called {twice[0]!r}. Give each its own name: NAME=FILE.")
    return judges, files


def name_and_file(given: str) -> tuple[str, str]:
    """NAME=FILE; a file alone is called by its own name."""
    name, equals, path = given.partition("=")
    if Path(given).is_file() or not equals:
        return Path(given).stem, given
    if not name.strip() or not path:
        raise DajError(f"{given!r} lacks a {'file' if name.strip() else 'name'}; wanted NAME=FILE.")
    return name, path


def stamp(path: str | Path) -> str:
    """A file with the beginning of its hash."""
    digest = sha256_of(path)
    return f"{path} (sha256 {digest[:16]})" if digest else str(path)
