"""The prepared files say what execution showed, and a run recognises data that is not its own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from daj_lightning.data import SampledResponses, TemplatedResponses
from daj_lightning.data.labels import read_graded
from daj_lightning.data.pairs import read_comparisons, read_pairs
from daj_lightning.data.prepare import check_prepared, prepare
from daj_lightning.execution import Limits
from daj_lightning.judge import Voting
from daj_lightning.records import Candidate, DajError, Problem
from tiny import ToySource, toy_data


class PartOfToy(ToySource):
    """The toy problems that `keep` accepts, as `change` leaves them."""

    def __init__(self, keep: Callable[[Problem], bool], change: Callable[[Problem], Problem] = lambda p: p) -> None:
        self.keep, self.change = keep, change

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        problems, candidates = super().load()
        problems = [self.change(p) for p in problems if self.keep(p)]
        kept = {p.problem_id for p in problems}
        return problems, [c for c in candidates if c.problem_id in kept]


def one_of_each_side(problem: Problem) -> bool:
    return problem.problem_id in ("plus-1", "plus-9", "plus-15")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_candidate_that_fails_only_a_hidden_test_is_labelled_failing(prepared) -> None:
    """Of the four toy programs the last, "k + 1", passes the public test (n = 1) and no hidden one."""
    verdicts = rows(prepared.root / "verdicts.jsonl")[1:]  # the first row says what made them
    assert len(verdicts) == 18 * 4
    for verdict in verdicts:
        number = verdict["candidate_id"].split("/")[1]
        outcome, num_passed = {"2": ("wrong_answer", 0), "3": ("wrong_answer", 1)}.get(number, ("passed", 3))
        assert (verdict["outcome"], verdict["num_passed"], verdict["num_tests"]) == (outcome, num_passed, 3)
    graded = read_graded(prepared.root)
    assert len(graded) == 18
    for name, group in graded.items():
        assert [c.candidate_id for c, _ in group] == [f"{name}/{i}" for i in range(4)]
        assert [passed for _, passed in group] == [True, True, False, False]


def test_the_files_hold_what_the_manifest_counts(prepared) -> None:
    """2 right x 2 wrong x 2 orders = 8 pairs a problem; 8 rounds of voting more where the judge is asked."""
    counts = json.loads((prepared.root / "manifest.json").read_text())["counts"]
    assert counts == {"train": 8 * 8, "meta": 6 * 8, "validation": 6 * (8 + 8), "test": 4 * (8 + 8), "unseen": 0}
    assert counts == {name: len(rows(prepared.root / f"{name}.jsonl")) for name in counts}
    assert json.loads((prepared.root / "manifest.json").read_text())["outcomes"] == {"passed": 36, "wrong_answer": 36}


def test_no_problem_stands_on_two_sides_and_validation_asks_about_the_meta_problems(prepared) -> None:
    side = {name: {row["problem_id"] for row in rows(prepared.root / f"{name}.jsonl")} for name in ("train", "meta")}
    asked = {
        name: {c.problem_id for c in read_comparisons(prepared.root / f"{name}.jsonl")}
        for name in ("validation", "test")
    }
    assert side["train"] == {f"plus-{k}" for k in range(1, 9)}
    assert side["meta"] == asked["validation"] == {f"plus-{k}" for k in range(9, 15)}
    assert asked["test"] == {f"plus-{k}" for k in range(15, 19)}


def test_every_training_pair_prefers_a_program_that_passes(prepared) -> None:
    for name in ("train", "meta"):
        for pair in read_pairs(prepared.root / f"{name}.jsonl"):
            chosen = int(pair.chosen.split("<selection>")[1][0]) - 1
            assert pair.candidate_ids[chosen].split("/")[1] in "01"  # the toy programs that pass
            assert pair.candidate_ids[1 - chosen].split("/")[1] in "23"


def test_no_prompt_shows_a_hidden_test(tmp_path: Path) -> None:
    def secret(problem: Problem) -> Problem:
        tests = tuple(replace(test, input=test.input + "\nSECRET") for test in problem.hidden_tests)
        return replace(problem, hidden_tests=tests)  # the programs read the first line only

    data = toy_data(tmp_path, tmp_path, source=PartOfToy(one_of_each_side, secret))
    prepare(data.preparation, tmp_path)
    for name in ("train", "meta", "validation", "test"):
        assert "SECRET" not in (tmp_path / f"{name}.jsonl").read_text()


def test_unseen_problems_are_a_test_set_of_their_own(tmp_path: Path) -> None:
    source = PartOfToy(
        lambda p: one_of_each_side(p) or p.problem_id == "plus-18",
        lambda p: replace(p, split="unseen" if p.problem_id == "plus-18" else None),
    )
    data = toy_data(tmp_path, tmp_path, source=source)
    console = Console(record=True, width=100, file=io.StringIO())
    manifest = prepare(data.preparation, tmp_path, console)
    assert manifest["counts"] == {"train": 8, "meta": 8, "validation": 16, "test": 16, "unseen": 16}
    for name, problem in (("test", "plus-15"), ("unseen", "plus-18")):
        comparisons = read_comparisons(tmp_path / f"{name}.jsonl")
        assert {(c.problem_id, c.kind) for c in comparisons} == {(problem, "mixed"), (problem, "round")}
    sides = json.loads((tmp_path / "problems.json").read_text())
    assert (sides["test"], sides["unseen"]) == ({"plus-15": "easy"}, {"plus-18": "hard"})
    assert "unseen" in console.export_text()


def test_without_unseen_problems_their_file_is_empty_and_nothing_is_said_of_them(tmp_path: Path) -> None:
    data = toy_data(tmp_path, tmp_path, source=PartOfToy(one_of_each_side))
    console = Console(record=True, width=100, file=io.StringIO())
    prepare(data.preparation, tmp_path, console)
    assert (tmp_path / "unseen.jsonl").read_text() == ""
    assert json.loads((tmp_path / "problems.json").read_text())["unseen"] == {}
    text = console.export_text()
    assert "unseen" not in text
    assert "near-duplicates removed: none" in text


class WithCopies(PartOfToy):
    """One problem a side, and in training a re-worded copy of the test's and a renamed program of meta's."""

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        problems, candidates = super().load()
        test = next(p for p in problems if p.problem_id == "plus-15")
        copy = replace(
            test, problem_id="copy", statement=test.statement.replace(" ", "  "), release_date=date(2023, 1, 1)
        )
        renamed = Candidate("renamed", "plus-1", "toy", "value = int(input())  # read\nprint(value + 9)")
        return [*problems, copy], [*candidates, Candidate("copied", "copy", "toy", "print(1)"), renamed]


def test_near_duplicates_leave_training_before_they_are_executed_and_the_manifest_lists_them(tmp_path: Path) -> None:
    data = toy_data(tmp_path, tmp_path, source=WithCopies(one_of_each_side))
    console = Console(record=True, width=100, file=io.StringIO())
    manifest = prepare(data.preparation, tmp_path, console)
    counts = manifest["duplicates"]["counts"]
    assert {kind: {pair: n for pair, n in of_kind.items() if n} for kind, of_kind in counts.items()} == {
        "statement": {"train/test": 1},
        "program": {"train/meta": 1},
    }
    removed = [(r["id"], r["repeats"]) for r in manifest["duplicates"]["removed"]]
    assert removed == [("copy", "plus-15"), ("renamed", "plus-9/1")]
    assert rows(tmp_path / "duplicates.jsonl") == manifest["duplicates"]["removed"]
    assert {v["candidate_id"] for v in rows(tmp_path / "verdicts.jsonl")[1:]} == {
        f"{name}/{k}" for name in ("plus-1", "plus-9", "plus-15") for k in range(4)
    }
    assert "near-duplicates removed: statements train/test 1; programs train/meta 1" in console.export_text()


def test_the_manifest_lists_200_of_many_removed_ones_and_the_file_all(tmp_path: Path) -> None:
    class Repetitive(PartOfToy):
        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, candidates = super().load()
            copies = [
                Candidate(f"copy/{k}", "plus-1", "toy", f"v{k} = int(input())\nprint(v{k} + 9)") for k in range(201)
            ]
            return problems, [*candidates, *copies]

    manifest = prepare(toy_data(tmp_path, tmp_path, source=Repetitive(one_of_each_side)).preparation, tmp_path)
    assert manifest["duplicates"]["counts"]["program"]["train/meta"] == 201
    assert len(manifest["duplicates"]["removed"]) == 200
    assert len(rows(tmp_path / "duplicates.jsonl")) == 201


def test_a_side_that_loses_everything_to_repeats_says_where_they_are_listed(tmp_path: Path) -> None:
    """The only training problem is meta's over again."""

    class Copied(PartOfToy):
        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, candidates = super().load()
            meta = next(p for p in problems if p.problem_id == "plus-9")
            copy = replace(meta, problem_id="plus-1", release_date=date(2024, 3, 1))
            return [copy, *problems[1:]], candidates

    data = toy_data(tmp_path, tmp_path, source=Copied(one_of_each_side))
    with pytest.raises(DajError, match=r"train set is empty: .*duplicates\.jsonl lists what was removed"):
        prepare(data.preparation, tmp_path)


@pytest.mark.parametrize("similarity", [0.0, 1.1, -1.0])
def test_a_similarity_that_is_no_share_is_refused(tmp_path: Path, similarity: float) -> None:
    with pytest.raises(DajError, match="statement_similarity"):
        toy_data(tmp_path, tmp_path, statement_similarity=similarity)


def test_the_test_asks_about_both_test_sets_and_validation_about_none(tmp_path: Path, prepared) -> None:
    source = PartOfToy(
        lambda p: True, lambda p: replace(p, split="unseen" if p.problem_id in ("plus-17", "plus-18") else None)
    )
    data = toy_data(tmp_path, prepared.base, source=source)
    prepare(data.preparation, tmp_path)
    data.setup("test")
    asked = {c.problem_id for batch in data.test_dataloader() for c in batch}
    assert asked == {"plus-15", "plus-16", "plus-17", "plus-18"}
    assert {stage: set(problems) for stage, problems in data.difficulty.items()} == {
        "validate": {f"plus-{k}" for k in range(9, 15)},
        "test": {"plus-15", "plus-16"},
        "unseen": {"plus-17", "plus-18"},
    }
    assert {c.problem_id for batch in data.val_dataloader() for c in batch} == set(data.difficulty["validate"])


def test_limits_on_pairs_count_pairs_in_both_orders_and_a_late_problem_is_dropped(tmp_path: Path) -> None:
    def late(problem: Problem) -> Problem:
        return replace(problem, release_date=date(2025, 5, 1)) if problem.problem_id == "plus-18" else problem

    source = PartOfToy(lambda p: one_of_each_side(p) or p.problem_id == "plus-18", late)
    data = toy_data(
        tmp_path,
        tmp_path,
        source=source,
        max_pairs_per_problem=3,
        max_asked_pairs_per_problem=2,
        voting=Voting(rounds=5),
    )
    manifest = prepare(data.preparation, tmp_path)
    assert manifest["counts"] == {"train": 6, "meta": 6, "validation": 4 + 5, "test": 4 + 5, "unseen": 0}
    assert set(read_graded(tmp_path)) == {"plus-1", "plus-9", "plus-15"}
    for name in ("validation", "test"):
        mixed = [c.candidate_ids for c in read_comparisons(tmp_path / f"{name}.jsonl") if c.kind == "mixed"]
        assert {pair[::-1] for pair in mixed} == set(mixed)
    assert check_prepared(data.preparation, tmp_path) == manifest


@pytest.mark.parametrize("kind", ["problem", "candidate"])
def test_an_id_that_occurs_twice_is_refused(tmp_path: Path, kind: str) -> None:
    class Twice(ToySource):
        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, candidates = super().load()
            return (problems + problems[:1], candidates) if kind == "problem" else (problems, candidates * 2)

    with pytest.raises(DajError, match=f"{kind} ids occur twice"):
        prepare(toy_data(tmp_path, tmp_path, source=Twice()).preparation, tmp_path)


@pytest.mark.parametrize(
    ("kept_before", "wanted"),
    [
        (date(2024, 8, 1), r"meta set is empty.*in \[2024-08-01, 2025-02-01\).*the problems cover 2024-03-01"),
        (None, ""),
    ],
    ids=["no meta problem", "no meta problem with both"],
)
def test_an_empty_meta_set_is_an_error_and_leaves_nothing_to_train_on(
    tmp_path: Path, kept_before: date | None, wanted: str
) -> None:
    class AllAlike(PartOfToy):
        """The meta problem has passing candidates only."""

        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, candidates = super().load()
            return problems, [c for c in candidates if c.problem_id == "plus-1" or c.candidate_id.endswith(("0", "1"))]

    source = (
        PartOfToy(lambda p: p.problem_id == "plus-1")
        if kept_before
        else AllAlike(lambda p: p.problem_id in ("plus-1", "plus-9"))
    )
    data = toy_data(tmp_path, tmp_path, source=source)
    with pytest.raises(DajError, match=wanted or "meta set is empty.*both a passing and a failing candidate"):
        prepare(data.preparation, tmp_path)
    with pytest.raises(DajError, match="no prepared data"):
        check_prepared(data.preparation, tmp_path)


def test_missing_data_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    data = toy_data(tmp_path / "nowhere", tmp_path)
    for use in (data.prepare_data, lambda: data.setup("fit"), lambda: check_prepared(data.preparation, data.root)):
        with pytest.raises(DajError, match=r"no prepared data in '.*nowhere'.*Run `python -m daj_lightning prepare`"):
            use()


@pytest.mark.parametrize(
    ("changed", "argument"),
    [
        ("template", {"template": "five_steps"}),
        ("responses", {"responses": TemplatedResponses(seed=1)}),
        ("voting", {"voting": Voting(rounds=9)}),
        ("limits", {"limits": Limits(memory_mib=512)}),
        ("max_pairs_per_problem", {"max_pairs_per_problem": 7}),
        ("statement_similarity", {"statement_similarity": 0.9}),
        ("seed", {"seed": 1}),
    ],
)
def test_data_prepared_in_another_way_is_refused_by_what_changed(prepared, changed: str, argument: dict) -> None:
    data = toy_data(prepared.root, prepared.base, **argument)
    with pytest.raises(DajError, match=rf"prepared with another {changed}\. Run `python -m daj_lightning prepare`"):
        check_prepared(data.preparation, prepared.root)


def test_what_leaves_the_files_alone_leaves_them_usable(prepared) -> None:
    """Workers only change how fast they came, corruption happens when they are read."""
    data = toy_data(prepared.root, prepared.base, num_workers=1, corrupt={"atcoder-easy": 1.0}, num_inner=2)
    check_prepared(data.preparation, prepared.root)


def test_an_edited_template_makes_the_data_stale(tmp_path: Path) -> None:
    """Its text counts, not its name."""
    template = tmp_path / "mine.txt"
    template.write_text("{statement} {candidates}")
    data = toy_data(tmp_path, tmp_path, source=PartOfToy(one_of_each_side), template=str(template))
    prepare(data.preparation, tmp_path)
    check_prepared(data.preparation, tmp_path)
    template.write_text("{statement} please {candidates}")
    with pytest.raises(DajError, match="another template"):
        check_prepared(data.preparation, tmp_path)


def test_a_preparation_that_broke_off_leaves_no_manifest_of_the_one_before(tmp_path: Path) -> None:
    class Broken(ToySource):
        def load(self) -> tuple[list[Problem], list[Candidate]]:
            raise OSError("disk gone")

    (tmp_path / "manifest.json").write_text("{}")
    data = toy_data(tmp_path, tmp_path, source=Broken())
    with pytest.raises(OSError, match="disk gone"):
        prepare(data.preparation, tmp_path)
    with pytest.raises(DajError, match="no prepared data"):
        check_prepared(data.preparation, tmp_path)


def test_prepare_on_fit_prepares_once(tmp_path: Path) -> None:
    data = toy_data(tmp_path, tmp_path, source=PartOfToy(one_of_each_side), prepare_on_fit=True)
    data.prepare_data()
    written = (tmp_path / "verdicts.jsonl").stat().st_mtime_ns
    data.prepare_data()
    assert (tmp_path / "verdicts.jsonl").stat().st_mtime_ns == written


def test_the_same_preparation_writes_the_same_rows(tmp_path: Path) -> None:
    for place in ("one", "two"):
        data = toy_data(tmp_path / place, tmp_path, source=PartOfToy(one_of_each_side))
        prepare(data.preparation, data.root)
    for name in ("train", "meta", "validation", "test", "candidates"):
        assert (tmp_path / "one" / f"{name}.jsonl").read_bytes() == (tmp_path / "two" / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize(
    "changed",
    [
        {"num_responses": 4},
        {"temperature": 0.5},
        {"seed": 1},
        {"max_new_tokens": 9},
        {"model": "b"},
        {"batch_size": 4},
    ],
)
def test_a_change_in_how_responses_are_sampled_makes_the_data_stale(changed: dict[str, Any]) -> None:
    """Also of the batch: its prompts share one random stream, so other batches draw other responses."""
    assert SampledResponses(**{"model": "a", **changed}).description() != SampledResponses("a").description()


def test_two_candidates_of_one_id_are_refused(tmp_path: Path) -> None:
    """Verdicts are found by candidate id: with two programs of one id, one would get the other's label."""

    class Doubled(PartOfToy):
        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, candidates = super().load()
            return problems, [replace(c, candidate_id="same") if c.candidate_id[-1] in "02" else c for c in candidates]

    data = toy_data(tmp_path, tmp_path, source=Doubled(one_of_each_side))
    with pytest.raises(DajError, match="same"):
        prepare(data.preparation, tmp_path)
