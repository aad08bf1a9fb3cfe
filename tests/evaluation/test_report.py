"""The report shows what was measured, says what was not, and cannot be written to by what it quotes."""

from __future__ import annotations

import html
import inspect
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from daj_lightning.evaluation.document import percent
from daj_lightning.evaluation.hostile import TEXT_LIMIT, Line, compare_lines, quote, visible
from daj_lightning.evaluation.metrics import Score
from daj_lightning.evaluation.paper_figures import PAPER_TABLES, TABLE_3, TABLE_4A, PaperTable
from daj_lightning.evaluation.report import write_report
from daj_lightning.evaluation.results import Evaluation, JudgeResult, WeightHistory
from daj_lightning.evaluation.sections import MISSING
from example_evaluation import baselines_only, full_evaluation, hostile_evaluation

Rows = list[list[str]]


class Page(HTMLParser):
    """Elements with their attributes, tables as rows of cells, and all text outside the style sheet."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[Rows] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self._open.append(tag)
        if tag == "tbody":
            self.tables.append([])
        elif tag == "tr" and "tbody" in self._open:
            self.tables[-1].append([])
        elif tag in ("td", "th") and "tbody" in self._open:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "tbody" in self._open and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += f" {data}"

    def table(self, place: int) -> Rows:
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[place]]

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for tag, attributes in self.elements if tag == "section"]


def page(evaluation: Evaluation, directory: Path) -> Page:
    write_report(evaluation, directory)
    return Page((directory / "report.html").read_text(encoding="utf-8"))


def markdown_tables(text: str) -> list[Rows]:
    tables: list[Rows] = []
    lines = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", text).splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if re.fullmatch(r"\|(-+:?\|)+", line):
            tables.append([])
        elif line.startswith("|") and tables and before.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip("|"))
            plain = [html.unescape(re.sub(r"\\(.)", r"\1", cell)).strip() for cell in cells]
            tables[-1].append([cell.strip("*") for cell in plain])
    return tables


def test_markdown_holds_the_page_s_tables_cell_by_cell(tmp_path: Path) -> None:
    shown = page(full_evaluation(), tmp_path)
    written = markdown_tables((tmp_path / "report.md").read_text(encoding="utf-8"))
    assert len(shown.tables) == len(written) > 12
    for place, table in enumerate(written):
        # A heading over rows spans all columns of the page, and stands in the first of Markdown's.
        whole = [row[:1] if not any(row[1:]) and len(row) > 1 else row for row in table]
        assert whole == shown.table(place)


def test_markdown_holds_the_page_s_headings_and_texts(tmp_path: Path) -> None:
    evaluation = full_evaluation()
    shown = page(evaluation, tmp_path)
    written = (tmp_path / "report.md").read_text(encoding="utf-8")
    for text in (evaluation.failures[0].statement, evaluation.failures[0].programs[1], evaluation.harmful[0].prompt):
        assert text.strip("\n") in shown.text
        assert text.strip("\n") in written
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", (tmp_path / "report.html").read_text())
    assert [html.unescape(title) for title in titles] == re.findall(r"(?m)^## (.*)$", written)


def test_the_headline_is_the_first_judge_s_share_of_the_gap(tmp_path: Path) -> None:
    evaluation = full_evaluation()
    gap = evaluation.judges[0].gap_recovered["overall"]
    text = " ".join(page(evaluation, tmp_path).text.split())
    assert f"closes {percent(gap.value)} % of the gap between picking at random (0 %)" in text
    assert f"95 % interval over problems: {percent(gap.low)} to {percent(gap.high)} %" in text


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.5, "is better than picking at random"), (-0.1, 0.5, "do not show"), (-0.5, -0.1, "is worse than")],
)
def test_the_headline_claims_no_more_than_the_interval(low: float, high: float, verdict: str, tmp_path: Path) -> None:
    score = {"overall": Score((low + high) / 2, low, high, 20)}
    evaluation = replace(baselines_only(), judges=[JudgeResult("j", "a file", score, score, {})])
    assert verdict in page(evaluation, tmp_path).text


def test_sections_without_data_are_absent_and_each_says_what_would_fill_it(tmp_path: Path) -> None:
    full, bare = page(full_evaluation(), tmp_path / "full"), page(baselines_only(), tmp_path / "bare")
    assert set(full.ids()) - set(bare.ids()) == {
        "pairwise",
        "tests",
        "curves",
        "candidates",
        "weights",
        "samples",
        "failures",
    }
    assert "missing" not in full.ids()
    said = bare.text[bare.text.rindex("What would fill the rest") :]
    for words in ("--judgments", "--pairs", "second judge", "Figure 4", "influence.parquet", "--execute", "Failure"):
        assert words in said


@pytest.mark.parametrize("table", [t for t in PAPER_TABLES if t.benchmark == "LiveCodeBench"], ids=lambda t: t.number)
def test_the_paper_s_overall_is_the_mean_over_31_easy_39_medium_and_61_hard_problems(table: PaperTable) -> None:
    """So a misread digit would show; not where 4 or 8 candidates are averaged first, nor in averages over policies."""
    for block in table.blocks:
        for row in block.rows:
            if "Average" in block.heading or block.heading in ("o4-mini (high)", "Qwen2.5-Coder-32B"):
                continue
            overall, easy, medium, hard = row.values
            assert overall == pytest.approx((31 * easy + 39 * medium + 61 * hard) / 131, abs=0.11), row.name


@pytest.mark.parametrize("table", [TABLE_3, TABLE_4A], ids=lambda t: t.number)
def test_the_paper_s_averages_are_those_of_its_rows(table: PaperTable) -> None:
    *blocks, average = table.blocks
    for row, *parts in zip(average.rows, *(block.rows for block in blocks), strict=True):
        for place, value in enumerate(row.values):
            assert value == pytest.approx(sum(part.values[place] for part in parts) / len(parts), abs=0.06), row.name


def paper_table(shown: Page, number: int) -> dict[str, list[str]]:
    """Rows of the paper's table by "block: row"."""
    rows, heading = {}, ""
    for row in shown.table(number):
        if len(row) == 1:
            heading = row[0]
        else:
            rows[f"{heading}: {row[0]}"] = row[1:]
    return rows


def test_ours_stands_in_the_rows_that_it_belongs_to(tmp_path: Path) -> None:
    """The gap's table comes first, then Tables 1, 2, 3, 4 (a), 4 (b)."""
    evaluation = full_evaluation()
    shown = page(evaluation, tmp_path)
    own = evaluation.judges[0].pass_at_1["hard"]
    ours = f"{percent(own.value)} [{percent(own.low)}, {percent(own.high)}]"
    table_2, table_3, table_4a, table_4b = (paper_table(shown, place) for place in (2, 3, 4, 5))
    assert table_2["Test-time scaling methods: DaJ"][:4] == ["84.7", "100.0", "89.7", "73.8"]
    assert table_2["Test-time scaling methods: DaJ"][7] == ours
    assert table_2["Test-time scaling methods: DeepSeek GRM"][4:] == [""] * 4
    assert table_2["Test-time scaling methods: Skywork-o1 PRM"][4] != ""
    assert table_3["Qwen2.5-Coder-32B: DaJ"][7] == ours
    assert table_3["DeepSeek V3.2 Speciale: DaJ"][4:] == [""] * 4
    assert table_4a["DPO: Instance net"][7] == ours
    assert table_4a["DPO: No reweighting"][4] != ""
    assert table_4a["KTO: Instance net"][4:] == [""] * 4
    assert len(table_4b["GRPO: Domain"]) == 4, "nothing of ours: no column"


def test_a_curve_over_several_sets_of_problems_says_so(tmp_path: Path) -> None:
    evaluation = full_evaluation()
    told = "Strategies are replayed on the problems whose pairs were all asked"
    assert told not in page(evaluation, tmp_path).text
    judge = evaluation.judges[0]
    first, *others = judge.curve
    fewer = replace(first, pass_at_1=replace(first.pass_at_1, num_problems=7))
    shown = page(replace(evaluation, judges=[replace(judge, curve=[fewer, *others])]), tmp_path)
    assert told in shown.text
    assert any(row[-1].endswith("n=7") for table in range(len(shown.tables)) for row in shown.table(table))


def test_a_judge_by_a_model_of_the_zero_shot_rows_is_not_that_row(tmp_path: Path) -> None:
    """The paper's row is one program of o4-mini; ours picks among several by its judgments."""
    evaluation = full_evaluation()
    judge = replace(evaluation.judges[1], name="o4-mini (high)")
    shown = page(replace(evaluation, judges=[evaluation.judges[0], judge]), tmp_path)
    table_2 = paper_table(shown, 2)
    assert table_2["Zero-shot methods: o4-mini (high)"][4:] == [""] * 4
    assert table_2["Ours only: o4-mini (high)"][4] != ""


def test_a_table_of_another_benchmark_has_nothing_of_ours(tmp_path: Path) -> None:
    shown = page(full_evaluation(), tmp_path)
    assert all(len(row) == 1 for row in paper_table(shown, 1).values())
    assert "since this evaluation is of LiveCodeBench" in shown.text


def test_other_data_is_called_not_comparable_at_each_table(tmp_path: Path) -> None:
    evaluation = full_evaluation()
    shown = page(replace(evaluation, facts={**evaluation.facts, "benchmark": "bank"}), tmp_path)
    assert shown.text.count("Not comparable: ours is of the data set “bank”") == 4
    assert "ours, other data" in shown.text


def test_data_that_nobody_names_is_not_taken_for_the_paper_s(tmp_path: Path) -> None:
    evaluation = full_evaluation()
    facts = {key: value for key, value in evaluation.facts.items() if key != "benchmark"}
    shown = page(replace(evaluation, facts=facts), tmp_path)
    assert shown.text.count("Not comparable: nothing says that ours is of") == 4


def test_a_score_over_no_problems_is_no_number(tmp_path: Path) -> None:
    none = Score(float("nan"), float("nan"), float("nan"), 0)
    some = Score(0.5, 0.4, 0.6, 10)
    judge = JudgeResult("j", "a file", {"overall": some, "easy": none}, {"overall": none}, {"NDCG": none})
    evaluation = replace(
        baselines_only(),
        judges=[judge],
        by_num_candidates={2: {"random": none, "j": none}},
        weights=WeightHistory([1], {"easy": [float("nan")]}, [[float("nan")] * 5] * 4),
    )
    text = page(evaluation, tmp_path).text
    assert "nan" not in text
    assert "there was nothing to recover" in text


ALLOWED = re.compile(
    "html|head|meta|link|title|style|body|a|header|p|h[1-4]|nav|ul|li|main|section|div|span|small|b|dl|dt|dd|"
    "table|caption|thead|tbody|tr|th|td|figure|figcaption|svg|path|text|details|summary|pre|mark|code"
)


def test_nothing_quoted_becomes_an_element(tmp_path: Path) -> None:
    plain, shown = page(full_evaluation(), tmp_path / "plain"), page(hostile_evaluation(), tmp_path)
    assert all(ALLOWED.fullmatch(tag) for tag, _ in plain.elements + shown.elements)
    for _, attributes in shown.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "srcdoc")]
    addresses = {attributes["href"] for tag, attributes in shown.elements if "href" in attributes}
    assert {address for address in addresses if not str(address).startswith("#")} == {"data:,"}
    assert "<script>alert(" in shown.text, "shown as text"
    assert "]]>" in shown.text


def test_nothing_hidden_reaches_the_page_or_the_file(tmp_path: Path) -> None:
    shown = page(hostile_evaluation(), tmp_path)
    for text in (shown.text, (tmp_path / "report.md").read_text(encoding="utf-8")):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
        assert "[U+202E]" in text
        assert "\u2400" in text


def test_a_text_of_a_megabyte_is_cut_with_a_note(tmp_path: Path) -> None:
    shown = page(hostile_evaluation(), tmp_path)
    assert f"{1_000_000 - TEXT_LIMIT:,} more characters are not shown." in shown.text
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    assert (tmp_path / "report.md").stat().st_size < 1_000_000


def test_a_fence_in_a_text_does_not_end_markdown_s(tmp_path: Path) -> None:
    write_report(hostile_evaluation(), tmp_path)
    written = (tmp_path / "report.md").read_text(encoding="utf-8")
    outside = re.sub(r"(?ms)^(`{3,})\w*$.*?^\1$", "", written)
    assert "````" in written
    assert re.search("(?m)^# not a heading", written)
    assert not re.search("(?m)^# not a heading", outside)
    assert "<script" not in outside


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    write_report(full_evaluation(), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?i)@import|url\(|<(script|img|iframe|object|embed|base|form)\b|https?:", text)


def test_headings_descend_one_step_at_a_time(tmp_path: Path) -> None:
    levels = [int(tag[1]) for tag, _ in page(full_evaluation(), tmp_path).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_figure_and_table_has_a_name(tmp_path: Path) -> None:
    shown = page(full_evaluation(), tmp_path)
    tags = [tag for tag, _ in shown.elements]
    assert tags.count("caption") == tags.count("table")
    drawings = [attributes for tag, attributes in shown.elements if tag == "svg" and "aria-hidden" not in attributes]
    assert len(drawings) == 2 * tags.count("figure")
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)


def test_visible_shows_what_is_hidden_and_leaves_the_rest() -> None:
    assert visible("a\x00b\u202ec\ud800\r\nd\té 漢 שלום") == "a\u2400b[U+202E]c\ufffd\nd\té 漢 שלום"


def test_a_quote_says_how_much_it_leaves_out() -> None:
    assert quote("abcdef", limit=4).note == "2 more characters are not shown."
    assert quote("abcd", limit=4).note == ""


def marked(lines: list[Line]) -> list[str]:
    return [part.text for line in lines for part in line.parts if part.marked]


def test_lines_that_one_of_two_texts_lacks_are_marked() -> None:
    first, second = compare_lines("same\nalso same\nfirst alone", "same\nadded here\nalso same")
    assert [line.text for line in second] == ["same", "added here", "also same"]
    assert marked(first) == ["first alone"]
    assert marked(second) == ["added here"]


def test_of_lines_that_are_alike_the_words_are_marked() -> None:
    first, second = compare_lines("One fails. <selection>1</selection>", "One fails. <selection>2</selection>")
    assert (marked(first), marked(second)) == (["1"], ["2"])
    assert first[0].text == "One fails. <selection>1</selection>"


def test_texts_with_nothing_in_common_are_not_marked() -> None:
    first, second = compare_lines("a\nb\nc\nd", "e\nf\ng\nh")
    assert not marked(first + second)


def test_texts_made_to_be_slow_to_compare_are_compared() -> None:
    """Lines, or words, that match in thousands of ways: without limits the third would take minutes."""
    many = "".join(f"{i % 100}\n" for i in range(4000))
    for one, other in (("a\n" * 4000, "b\n" * 4000), ("a b " * 2000, "b a " * 2000), (many, many[::-1])):
        first, _ = compare_lines(one, other)
        assert "\n".join(line.text for line in first) == one.rstrip("\n")


def test_options_that_the_report_names_are_options_of_evaluate() -> None:
    from daj_lightning.__main__ import COMMANDS

    if "evaluate" not in COMMANDS:
        pytest.skip("this version has no command `evaluate`")
    named = set(re.findall(r"--(\w+)", " ".join(MISSING.values())))
    assert named
    assert named <= set(inspect.signature(COMMANDS["evaluate"]).parameters)


def test_judges_of_pairs_alone_have_pairwise_metrics_and_no_row_among_candidates(tmp_path: Path) -> None:
    score = Score(0.6, 0.5, 0.7, 30)
    judge = JudgeResult("pairs only", "a both-order file", {}, {}, {"both correct": score})
    text = page(replace(baselines_only(), judges=[judge]), tmp_path).text
    assert "“pairs only” has no headline" in text
    assert "60.0 [50.0, 70.0] n=30" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Ours only" in text, "random and oracle"


def test_a_sample_of_one_response_shows_one(tmp_path: Path) -> None:
    evaluation = full_evaluation()
    sample = replace(evaluation.helpful[0], rejected="")
    text = page(replace(evaluation, helpful=[sample], harmful=[]), tmp_path).text
    assert "Chosen response" in text
    assert "Rejected response" not in text
