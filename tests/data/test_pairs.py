"""Pairs say where they came from, unusable comparisons say why, and no response is sampled twice."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from asking import BROKEN, PROBLEM, RIGHT, WRONG, Written, comparison, wrote
from conftest import Prepared
from daj_lightning.__main__ import main
from daj_lightning.data import (
    NoResponses,
    TemplatedResponses,
    check_prepared,
    mixed_comparisons,
    preference_pairs,
    prepare_pairs,
)
from daj_lightning.data.judged import Judged, ResponseLog, ask, read_judged
from daj_lightning.data.pairs import pairs_of, read_comparisons, read_pairs
from daj_lightning.data.prepare import prepare
from daj_lightning.data.responses import Responses
from daj_lightning.data.usable import Report, Use, use_of
from daj_lightning.judge import PromptTemplate, Voting, parse_selection
from daj_lightning.records import Candidate, Comparison, DajError, ReferenceUse
from tiny import toy_data


def judged(*texts: str, finish_reason: str = "stop", one: Comparison | None = None) -> Judged:
    return ask([one or comparison()], Written(wrote(*texts, finish_reason=finish_reason)))[0]


def test_chosen_is_the_first_correct_selection_and_rejected_the_first_other_answer() -> None:
    """A format error is rejected just as a wrong selection is: whichever comes first."""
    also_right = "again <selection>1</selection>"
    source = Written(wrote(BROKEN, WRONG, RIGHT, also_right), wrote(WRONG, RIGHT, BROKEN), wrote(RIGHT, BROKEN))
    pairs = preference_pairs([comparison()] * 3, source)
    assert [(p.chosen, p.rejected) for p in pairs] == [(RIGHT, BROKEN), (RIGHT, WRONG), (RIGHT, BROKEN)]


def test_no_pair_comes_of_responses_that_are_all_correct_or_all_not() -> None:
    source = Written(wrote(WRONG, BROKEN, WRONG), wrote(RIGHT, RIGHT), wrote())
    assert preference_pairs([comparison()] * 3, source) == []


def test_a_source_is_asked_in_its_own_batches() -> None:
    source = Written(*[wrote(RIGHT, WRONG)] * 5, batch_size=2)
    assert len(preference_pairs([comparison()] * 5, source)) == 5
    assert [len(batch) for batch in source.asked] == [2, 2, 1]


def test_a_pair_carries_the_prompt_that_its_responses_answer() -> None:
    problem, passed = PROBLEM, {"A": True, "B": False, "C": True, "D": False}
    programs = [Candidate(name, problem.problem_id, "toy", f"print('{name}')") for name in "ABCD"]
    asked = mixed_comparisons(problem, programs, passed, PromptTemplate("compact"), 8, 0)
    for one, pair in zip(asked, preference_pairs(asked, TemplatedResponses(0)), strict=True):
        assert (pair.prompt, pair.candidate_ids) == (one.prompt, one.candidate_ids)
        assert (pair.problem_id, pair.domain) == (one.problem_id, one.domain)
        assert one.passed[parse_selection(pair.chosen, 2)]
        assert not one.passed[parse_selection(pair.rejected, 2)]


def test_the_provenance_names_both_responses_and_how_they_came() -> None:
    one = replace(comparison(), reference_id="C", reference_use=ReferenceUse.SHOWN, policy="a+b")
    (pair,) = pairs_of(judged(BROKEN, WRONG, RIGHT, one=one))
    assert pair.provenance is not None
    assert dataclasses.asdict(pair.provenance) == {
        "policy": "a+b",
        "reference_id": "C",
        "reference_use": "shown",
        "source": "written",
        "sampling": "",
        "num_responses": 3,
        "chosen_index": 2,
        "rejected_index": 0,
        "chosen_reward": 1.0,
        "rejected_reward": 0.0,
        "rejected_kind": "format error",
    }
    (pair,) = pairs_of(judged(RIGHT, WRONG))
    assert pair.provenance is not None
    assert (pair.provenance.rejected_kind, pair.provenance.rejected_reward) == ("wrong selection", 0.5)


def numbered(text: str, number: int) -> list[str]:
    return [f"{i} {text}" for i in range(number)]


def test_several_pairs_of_a_comparison_are_drawn_by_seed_and_never_alike() -> None:
    """4 correct x 3 others = 12 pairs; texts that repeat make no further pair."""
    right, other = numbered(RIGHT, 4), [*numbered(WRONG, 2), BROKEN]
    row = judged(*right, *right, *other, *other)
    everything = {(r, o) for r in right for o in other}
    assert {(p.chosen, p.rejected) for p in pairs_of(row, max_pairs=100)} == everything
    draws = {seed: [(p.chosen, p.rejected) for p in pairs_of(row, max_pairs=5, seed=seed)] for seed in range(10)}
    assert all(len(set(drawn)) == 5 and set(drawn) <= everything for drawn in draws.values())
    assert draws[3] == [(p.chosen, p.rejected) for p in pairs_of(row, max_pairs=5, seed=3)]
    assert len({tuple(drawn) for drawn in draws.values()}) > 1
    assert set().union(*draws.values()) == everything
    for pair in pairs_of(row, max_pairs=100):
        assert pair.provenance is not None
        assert row.responses[pair.provenance.chosen_index].text == pair.chosen
        assert row.responses[pair.provenance.rejected_index].text == pair.rejected


@pytest.mark.parametrize(
    ("row", "use"),
    [
        (judged(RIGHT, WRONG), Use.USED),
        (judged(RIGHT, BROKEN), Use.USED),
        (judged(RIGHT, RIGHT), Use.ALL_CORRECT),
        (judged(WRONG, WRONG), Use.ALL_WRONG),
        (judged(WRONG, BROKEN), Use.ALL_WRONG),
        (judged(BROKEN, BROKEN), Use.ALL_FORMAT_ERRORS),
        (judged(BROKEN, BROKEN, finish_reason="length"), Use.ALL_TRUNCATED),
        (judged(), Use.NO_RESPONSE),
        (ask([comparison()], Written(Responses((), too_long="prompt of 9 tokens, 3 fit")))[0], Use.TOO_LONG),
    ],
)
def test_an_unusable_comparison_says_why_and_a_used_one_gives_a_pair(row: Judged, use: Use) -> None:
    assert use_of(row) is use
    assert bool(pairs_of(row)) == (use is Use.USED)


def test_the_report_counts_by_split_and_domain_and_shows_the_reasons_that_occur() -> None:
    report = Report()
    hard = replace(comparison(), domain="atcoder-hard", reference_use=ReferenceUse.LACKING)
    for split, row in (
        ("train", judged(RIGHT, WRONG)),
        ("train", judged(RIGHT, RIGHT)),
        ("train", judged(BROKEN, BROKEN, one=hard)),
        ("meta", judged(RIGHT, WRONG)),
    ):
        report.count(split, row, len(pairs_of(row)))
    easy = comparison().domain
    assert report.as_json()["train"] == {
        "comparisons": {easy: {"all correct": 1, "used": 1}, "atcoder-hard": {"format errors": 1}},
        "pairs": {easy: 1, "atcoder-hard": 0},
        "rewards": {"0": 2, "0.5": 1, "1": 3},
        "references": {"lacking": 1, "none": 2},
    }
    assert report.totals("train") == {"used": 1, "all correct": 1, "format errors": 1}
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(report.table())
    text = console.export_text()
    assert "all correct" in text
    assert "format errors" in text
    assert "too long" not in text
    assert "train: rewards of 6 responses 1: 50.0%, 0.5: 16.7%, 0: 33.3%" in report.lines()
    assert "train: references of 3 comparisons none 2, shown 0, dropped 0, lacking 1" in report.lines()
    assert not any(line.startswith("meta: references") for line in report.lines())


# The files of a prepared directory.


class Counted(TemplatedResponses):
    """Templated responses in small batches, which stops like a killed process after some."""

    batch_size = 5

    def __init__(self, seed: int = 0, die_after: int | None = None) -> None:
        super().__init__(seed=seed)
        self._left = die_after
        self._asked = 0
        self._closed = 0

    def respond(self, comparisons: Any) -> list[Responses]:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left = None if self._left is None else self._left - 1
        self._asked += len(comparisons)
        return super().respond(comparisons)

    def description(self) -> dict[str, object]:
        return {"responses": "templated", "seed": self.seed}

    def close(self) -> None:
        self._closed += 1


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Executed once; tests copy it."""
    root = tmp_path_factory.mktemp("labelled")
    data = toy_data(root, root, responses=Counted())
    prepare(data.preparation, root, quiet())
    return root


def quiet() -> Console:
    return Console(file=io.StringIO())


def copied(labelled: Path, tmp_path: Path, *, responses: bool = True) -> Path:
    for path in labelled.iterdir():
        if path.is_file() and (responses or not path.name.startswith("responses-")):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pairs_alone_write_what_prepare_writes_and_execute_nothing(labelled: Path, tmp_path: Path) -> None:
    root = copied(labelled, tmp_path, responses=False)
    wanted = {path.name: path.read_bytes() for path in labelled.iterdir()}
    for name in ("train", "meta", "validation", "test", "unseen"):
        (root / f"{name}.jsonl").unlink()
    executed = (root / "verdicts.jsonl").stat().st_mtime_ns
    prepare_pairs(toy_data(root, root, responses=Counted()).preparation, root, quiet())
    assert {path.name: path.read_bytes() for path in root.iterdir()} == wanted
    assert (root / "verdicts.jsonl").stat().st_mtime_ns == executed


def test_pairs_with_another_template_make_the_data_that_configuration_wants(labelled: Path, tmp_path: Path) -> None:
    root = copied(labelled, tmp_path)
    data = toy_data(root, root, responses=Counted(), template="five_steps")
    with pytest.raises(DajError, match=r"another template\. Run .* \(`pairs` is enough: the verdicts still hold\)"):
        check_prepared(data.preparation, root)
    manifest = prepare_pairs(data.preparation, root, quiet())
    assert check_prepared(data.preparation, root) == manifest
    assert all("Step 1," in pair.prompt for pair in read_pairs(root / "train.jsonl"))
    before = json.loads((labelled / "manifest.json").read_text())
    assert {key: manifest[key] for key in ("outcomes", "duplicates", "execution")} == {
        key: before[key] for key in ("outcomes", "duplicates", "execution")
    }


def test_pairs_refuse_verdicts_that_are_missing_of_another_kind_or_changed(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DajError, match=r"no labelled candidates in .*Run `python -m daj_lightning prepare`"):
        prepare_pairs(toy_data(tmp_path, tmp_path).preparation, tmp_path)
    root = copied(labelled, tmp_path)
    with pytest.raises(DajError, match="labelled with another statement_similarity"):
        prepare_pairs(toy_data(root, root, statement_similarity=0.9).preparation, root)
    text = (root / "verdicts.jsonl").read_text()
    (root / "verdicts.jsonl").write_text(text.replace("wrong_answer", "passed", 1))
    with pytest.raises(DajError, match=r"labelled with another verdicts\.jsonl"):
        prepare_pairs(toy_data(root, root, responses=Counted()).preparation, root)


def test_a_killed_run_goes_on_where_it_stopped_and_ends_as_an_unbroken_one(labelled: Path, tmp_path: Path) -> None:
    """64 training and 48 meta comparisons; killed after three batches of five, with a torn line behind them."""
    root = copied(labelled, tmp_path, responses=False)
    dying = toy_data(root, root, responses=Counted(die_after=3))
    with pytest.raises(KeyboardInterrupt):
        prepare_pairs(dying.preparation, root, quiet())
    assert dying.preparation.responses._closed == 1
    with pytest.raises(DajError, match="no prepared data"):
        check_prepared(dying.preparation, root)
    assert len(rows(root / "responses-train.jsonl")) == 15
    with (root / "responses-train.jsonl").open("a") as file:
        file.write('{"key": "0123456789abcdef01234567", "compar')
    source = Counted()
    prepare_pairs(toy_data(root, root, responses=source).preparation, root, quiet())
    assert source._asked == 64 - 15 + 48
    assert source._closed == 1  # once both sets are answered
    assert {p.name: p.read_bytes() for p in root.iterdir()} == {p.name: p.read_bytes() for p in labelled.iterdir()}


def test_the_same_pairs_again_ask_nothing(labelled: Path, tmp_path: Path) -> None:
    root, source = copied(labelled, tmp_path), Counted()
    prepare_pairs(toy_data(root, root, responses=source).preparation, root, quiet())
    assert source._asked == 0
    assert {p.name: p.read_bytes() for p in root.iterdir()} == {p.name: p.read_bytes() for p in labelled.iterdir()}


def test_responses_that_are_not_asked_for_leave_the_file_and_come_back(labelled: Path, tmp_path: Path) -> None:
    """Fewer pairs, then another source, then the first again: only the second is asked, and nothing is lost."""
    root = copied(labelled, tmp_path)
    fewer, other, first = Counted(), Counted(seed=1), Counted()
    prepare_pairs(toy_data(root, root, responses=fewer, max_pairs_per_problem=1).preparation, root, quiet())
    assert fewer._asked == 0
    assert len(rows(root / "responses-train.jsonl")) == len(rows(root / "train.jsonl")) == 8 * 2
    prepare_pairs(toy_data(root, root, responses=other).preparation, root, quiet())
    assert other._asked == 64 + 48
    assert len(rows(root / "responses-train.unused.jsonl")) == 64
    prepare_pairs(toy_data(root, root, responses=first).preparation, root, quiet())
    assert first._asked == 0
    for name in ("train.jsonl", "responses-train.jsonl", "responses-meta.jsonl"):
        assert (root / name).read_bytes() == (labelled / name).read_bytes()


def test_the_responses_file_holds_every_response_with_its_reward(labelled: Path) -> None:
    for split in ("train", "meta"):
        read = list(read_judged(labelled / f"responses-{split}.jsonl"))
        pairs = read_pairs(labelled / f"{split}.jsonl")
        assert [row.comparison.candidate_ids for row in read] == [pair.candidate_ids for pair in pairs]
        for row, pair in zip(read, pairs, strict=True):
            rewards = {response.text: response.reward for response in row.responses}
            assert (row.comparison.prompt, len(row.responses)) == (pair.prompt, 2)
            assert (rewards[pair.chosen], rewards[pair.rejected] < 1) == (1.0, True)
            for response in row.responses:
                wanted = None if response.selection is None else row.comparison.passed[response.selection]
                assert response.reward == {None: 0.0, False: 0.5, True: 1.0}[wanted]


def test_a_damaged_response_is_named_and_not_read_over(labelled: Path, tmp_path: Path) -> None:
    root = copied(labelled, tmp_path)
    path = root / "responses-train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    data = toy_data(root, root, responses=Counted())
    path.write_text("".join([lines[0], lines[1].replace('"reward": 0.5', '"reward": 1.0'), *lines[2:]]))
    with pytest.raises(DajError, match=r"responses-train\.jsonl, line 2 is damaged"):
        prepare_pairs(data.preparation, root, quiet())
    path.write_text("".join([lines[0], "garbage\n", *lines[2:]]))
    with pytest.raises(DajError, match=r"responses-train\.jsonl, line 2 is no row"):
        prepare_pairs(data.preparation, root, quiet())


def test_two_runs_cannot_write_the_same_responses(tmp_path: Path) -> None:
    with ResponseLog(tmp_path, "train"), pytest.raises(DajError, match="another process writes"):
        ResponseLog(tmp_path, "train").__enter__()


def test_training_shows_references_and_nothing_else_does(labelled: Path, tmp_path: Path) -> None:
    """Two programs of each problem pass, "print(n + k)" written in two ways; validation and test ask as in service."""
    root = copied(labelled, tmp_path)
    data = toy_data(root, root, responses=Counted(), reference_support=1.0, reference_drop=0.5)
    manifest = prepare_pairs(data.preparation, root, quiet())
    pairs = read_pairs(root / "train.jsonl")
    used = manifest["responses"]["train"]["references"]
    assert set(used) == {"shown", "dropped"}
    assert (used["shown"] + used["dropped"], len(pairs)) == (64, 64)
    for pair in pairs:
        assert pair.provenance is not None
        assert ("# Reference" in pair.prompt) == (pair.provenance.reference_id is not None)
        if pair.provenance.reference_id:
            problem, number = pair.provenance.reference_id.split("/")
            assert (problem, number in "01") == (pair.problem_id, True)
            assert pair.provenance.reference_id not in pair.candidate_ids
    assert 10 <= used["shown"] <= 54
    for name in ("meta", "validation", "test", "responses-meta"):
        assert "# Reference" not in (root / f"{name}.jsonl").read_text()
    for name in ("meta", "validation", "test"):
        assert (root / f"{name}.jsonl").read_bytes() == (labelled / f"{name}.jsonl").read_bytes()


def test_without_swap_training_has_one_order_and_validation_both(labelled: Path, tmp_path: Path) -> None:
    root = copied(labelled, tmp_path)
    counts = prepare_pairs(toy_data(root, root, responses=Counted(), swap=False).preparation, root, quiet())["counts"]
    assert (counts["train"], counts["meta"]) == (8 * 4, 6 * 4)
    asked = [pair.candidate_ids for pair in read_pairs(root / "train.jsonl")]
    assert not {ids[::-1] for ids in asked} & set(asked)
    for name in ("validation", "test"):
        assert (root / f"{name}.jsonl").read_bytes() == (labelled / f"{name}.jsonl").read_bytes()


def test_a_template_without_a_place_for_the_reference_is_refused_at_the_door(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("{statement} {candidates}")
    with pytest.raises(DajError, match=r"mine\.txt.* has no \{reference\}.*set data\.reference_support to 0"):
        toy_data(tmp_path, tmp_path, template=str(path), reference_support=0.1)
    toy_data(tmp_path, tmp_path, template=str(path))


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ({"reference_support": 1.2}, "shares from 0 to 1"),
        ({"reference_drop": 0.5}, "nothing to drop"),
        ({"max_pairs_per_comparison": 0}, "max_pairs_per_comparison=0 must be >= 1"),
        ({"voting": Voting(both_orders=True)}, "Leave both_orders and min_confidence to `select`"),
        ({"voting": Voting(min_confidence=0.5)}, "Leave both_orders and min_confidence to `select`"),
    ],
)
def test_options_without_a_meaning_are_refused(tmp_path: Path, argument: dict[str, Any], wanted: str) -> None:
    with pytest.raises(DajError, match=wanted):
        toy_data(tmp_path, tmp_path, **argument)


@pytest.mark.parametrize(
    ("changed", "argument"),
    [
        ("swap", {"swap": False}),
        ("references", {"reference_support": 0.5}),
        ("max_pairs_per_comparison", {"max_pairs_per_comparison": 2}),
    ],
)
def test_data_of_other_options_is_stale(labelled: Path, changed: str, argument: dict[str, Any]) -> None:
    with pytest.raises(DajError, match=rf"another {changed}\. Run .*`pairs` is enough"):
        check_prepared(toy_data(labelled, labelled, responses=Counted(), **argument).preparation, labelled)


@pytest.mark.parametrize(
    ("answer", "told"), [(wrote(BROKEN, BROKEN), "format errors 64"), (Responses(()), "no response 64")]
)
def test_responses_that_give_no_pair_at_all_are_an_error_with_the_reasons(
    labelled: Path, tmp_path: Path, answer: Responses, told: str
) -> None:
    class Undecided(Counted):
        def respond(self, comparisons: Any) -> list[Responses]:
            return [answer for _ in comparisons]

        def description(self) -> dict[str, object]:
            return {"responses": "undecided"}

    root = copied(labelled, tmp_path)
    data = toy_data(root, root, responses=Undecided())
    with pytest.raises(DajError, match=rf"train set is empty: .*\({told}\).*responses-train\.jsonl"):
        prepare_pairs(data.preparation, root, quiet())
    with pytest.raises(DajError, match="no prepared data"):
        check_prepared(data.preparation, root)


def test_without_responses_there_are_the_questions_for_grpo_and_no_pairs(
    labelled: Path, tmp_path: Path, prepared: Prepared
) -> None:
    root, console = copied(labelled, tmp_path, responses=False), Console(record=True, width=120, file=io.StringIO())
    data = toy_data(root, prepared.base, responses=NoResponses())
    manifest = prepare_pairs(data.preparation, root, console)
    assert (manifest["counts"]["train"], manifest["counts"]["meta"]) == (0, 0)
    assert "rewards of" not in console.export_text()
    for split, number in (("train", 64), ("meta", 48)):
        with_responses = [row.comparison for row in read_judged(labelled / f"responses-{split}.jsonl")]
        assert [row.comparison for row in read_judged(root / f"responses-{split}.jsonl")] == with_responses
        assert len(with_responses) == number
    for name in ("validation", "test"):
        assert (root / f"{name}.jsonl").read_bytes() == (labelled / f"{name}.jsonl").read_bytes()

    data.setup("fit")
    data.load_samples("prompt", max_new_tokens=12)
    assert (len(data.train_set), len(data.meta_set)) == (64, 48)
    with pytest.raises(DajError, match=r"train set is empty.*Run `pairs` with a data\.responses that writes some"):
        data.load_samples("pair")
    prepare_pairs(toy_data(root, root, responses=Counted()).preparation, root, quiet())
    assert (root / "train.jsonl").read_bytes() == (labelled / "train.jsonl").read_bytes()


@pytest.mark.parametrize("spoil", ["old", "new", "hand"])
def test_a_pair_of_another_version_is_refused_by_its_row(labelled: Path, tmp_path: Path, spoil: str) -> None:
    row = rows(labelled / "train.jsonl")[0]
    wanted = {"old": r"row 2 is no Pair of this version: it lacks \['provenance'\]", "new": r"\['extra'\] too many"}
    if spoil == "old":
        del row["provenance"]
    elif spoil == "new":
        row["extra"] = 1
    else:
        row["provenance"] = None
    path = tmp_path / "train.jsonl"
    path.write_text((labelled / "train.jsonl").read_text().splitlines()[0] + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DajError, match=wanted.get(spoil, "row 2, provenance holds a NoneType")):
        read_pairs(path)


def test_a_comparison_of_another_version_is_refused(labelled: Path, tmp_path: Path) -> None:
    row = rows(labelled / "test.jsonl")[0]
    del row["reference_use"]
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DajError, match=r"row 1 is no Comparison of this version: it lacks \['reference_use'\]"):
        read_comparisons(tmp_path / "test.jsonl")
    assert all(c.reference_use is ReferenceUse.NONE for c in read_comparisons(labelled / "test.jsonl"))


def test_the_command_pairs_writes_pairs(prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = copied(prepared.root, tmp_path)
    config = {
        "model": {
            "judge": {"class_path": "daj_lightning.judge.Judge", "init_args": {"base": str(prepared.base)}},
            "inner": {"lr": 1e-3},
            "outer": {"lr": 1e-2},
        },
        "data": {
            "source": {"class_path": "tiny.ToySource"},
            "responses": {"class_path": "daj_lightning.data.TemplatedResponses", "init_args": {"seed": 3}},
            "root": str(root),
            "template": "compact",
            "domains": ["atcoder-easy", "atcoder-hard"],
            "max_length": 256,
            "reference_support": 1.0,
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    assert main(["pairs", "--config", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "judge responses" in shown
    assert "train: rewards of 128 responses" in shown
    assert "train: references of 64 comparisons none 0, shown 64" in shown
    assert {row["provenance"]["reference_use"] for row in rows(root / "train.jsonl")} == {"shown"}
