"""The picture of a sweep: every attempt once, in the right lane and place, whatever names there are."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tales import Tale

from resweep_scheduler.accounts import RunCost
from resweep_scheduler.gantt import MOST_LANES, Chart, chart_of, draw_svg, html_page, tick_label, tick_step, to_png
from resweep_scheduler.gantt.picture import lane_height
from resweep_scheduler.gantt.svg import element, number, shortened, text

SVG = "{http://www.w3.org/2000/svg}"


def two_attempts(run_id: str = "r1", *, agents: Sequence[str] = ("box-a", "box-b")) -> RunCost:
    """100 s on the one agent, of which 40 s are lost, 20 s on the queue, 80 s on the other."""
    tale = Tale(run_id).tell(0, "suggested").tell(0, "claimed", 1, agents[0]).tell(60, "checkpoint", 1, step=5)
    tale.tell(90, "preempting", 1, reason="notice: aws", source="aws", lead=30_000)
    tale.tell(100, "preempted", 1, exit_code=75, reason="SIGTERM")
    return tale.tell(120, "claimed", 2, agents[1]).tell(200, "finished", 2).cost(now=200)


def chart(*costs: RunCost, title: str = "Sweep s1", now: float = 200) -> Chart:
    return chart_of(title, costs, {}, now=round(now * 1000))


def fleet(agents: int, *, seed: int = 0) -> list[RunCost]:
    """Runs that were preempted now and then, on `agents` agents that were all there for ten minutes."""
    chance = random.Random(seed)
    costs = []
    for place in range(agents):
        tale = Tale(f"run{place}").tell(0, "suggested").tell(chance.uniform(0, 60), "claimed", 1, f"box-{place:04}")
        at = tale.events[-1].at / 1000
        for attempt in range(1, chance.randint(2, 5)):
            tale.tell(at + 50, "checkpoint", attempt, step=attempt)
            at += chance.uniform(60, 130)
            end = chance.choice(["preempted", "preempted", "failed", "crashed", "finished"])
            tale.tell(at, end, attempt, f"box-{place:04}")
            if end != "preempted":
                break
            at += chance.uniform(1, 20)
            tale.tell(at, "claimed", attempt + 1, f"box-{place:04}")
        costs.append(tale.cost(now=600))
    return costs


def attempts_in(svg: str) -> list[tuple[str, str]]:
    """Run and attempt of each drawn attempt."""
    root = ElementTree.fromstring(svg)
    return [
        (group.attrib["data-run"], group.attrib["data-attempt"])
        for group in root.iter(f"{SVG}g")
        if group.get("class") == "attempt"
    ]


def rectangles(svg: str, run: str, attempt: int) -> dict[str, tuple[float, float]]:
    """Left and right of what is drawn of an attempt, by class."""
    root = ElementTree.fromstring(svg)
    (group,) = [
        group
        for group in root.iter(f"{SVG}g")
        if (group.get("data-run"), group.get("data-attempt")) == (run, str(attempt))
    ]
    return {
        one.attrib["class"]: (float(one.attrib["x"]), float(one.attrib["x"]) + float(one.attrib["width"]))
        for one in group.iter(f"{SVG}rect")
    }


def test_kept_and_lost_parts_are_to_scale() -> None:
    """Of 200 s, attempt 1 is kept from 0 to 60 and lost until 100; its notice came at 90; attempt 2 begins at 120."""
    svg = draw_svg(chart(two_attempts()))
    first, second = rectangles(svg, "r1", 1), rectangles(svg, "r1", 2)
    left, right = first["preempted"][0], second["finished"][1]
    share = {name: [(x - left) / (right - left) for x in edges] for name, edges in first.items()}
    assert share["preempted"] == pytest.approx([0, 0.3], abs=1e-3)
    assert share["preempted lost"] == pytest.approx([0.3, 0.5], abs=1e-3)
    assert sum(share["notice"]) / 2 == pytest.approx(0.45, abs=1e-3)
    assert (second["finished"][0] - left) / (right - left) == pytest.approx(0.6, abs=1e-3)
    assert "lost" not in " ".join(second)


def test_pointing_at_an_attempt_tells_all_of_it() -> None:
    root = ElementTree.fromstring(draw_svg(chart(two_attempts())))
    titles = ["".join(title.itertext()) for title in root.iter(f"{SVG}title")]
    assert (
        "run r1, attempt 1 on box-a\npreempted after 1m 40s (SIGTERM)\n1970-01-01 00:00:00 to 1970-01-01 00:01:40 UTC\n"
        "notice: aws, 30.0 s ahead, 10.0 s before the end\nlost 40.0 s" in titles
    )
    assert any("waited 20.0 s on the run queue before" in title for title in titles)
    assert "runs on the run queue: 1 at most" in titles


@pytest.mark.parametrize("agents", [1, 2, 31, 300, 1000])
def test_every_attempt_is_drawn_once(agents: int) -> None:
    costs = fleet(agents)
    drawn = chart(*costs, now=600)
    svg = draw_svg(drawn)
    expected = [(cost.run_id, str(one.attempt.number)) for cost in costs for one in cost.attempts]
    assert sorted(attempts_in(svg)) == sorted(expected)
    assert len(drawn.lanes) == agents
    height = float(ElementTree.fromstring(svg).attrib["height"])
    assert agents * lane_height(agents) < height < 300 + agents * lane_height(agents)


def test_the_same_sweep_gives_the_same_picture() -> None:
    assert draw_svg(chart(*fleet(40))) == draw_svg(chart(*fleet(40)))


def test_bars_of_a_lane_do_not_overlap_and_lie_in_the_picture() -> None:
    root = ElementTree.fromstring(draw_svg(chart(*fleet(50), now=600)))
    for lane in root.iter(f"{SVG}g"):
        if lane.get("class") == "lane":
            bars = [one for one in lane.iter(f"{SVG}rect") if one.get("class") != "notice"]
            edges = sorted(
                (float(one.attrib["x"]), float(one.attrib["x"]) + float(one.attrib["width"])) for one in bars
            )
            assert all(first[1] <= second[0] + 1.01 for first, second in pairwise(edges))
            assert edges[0][0] >= 70
            assert edges[-1][1] <= 1200


def gone_agents(number: int, side_by_side: int) -> Iterator[RunCost]:
    """Agents that come and go, `side_by_side` at a time."""
    for place in range(number):
        at = 10.0 * (place // side_by_side)
        tale = Tale(f"run{place}").tell(at, "suggested").tell(at, "claimed", 1, f"spot-{place}")
        yield tale.tell(at + 10, "finished", 1, f"spot-{place}").cost()


def test_agents_that_came_one_after_the_other_share_lanes_when_there_are_too_many() -> None:
    drawn = chart(*gone_agents(MOST_LANES + 10, side_by_side=50))
    assert (len(drawn.lanes), len(drawn.bars)) == (50, MOST_LANES + 10)
    assert drawn.remarks == ["1010 agents: those that were there one after the other share a lane"]
    assert drawn.lanes[0].name == "spot-0 and 20 more"
    assert len(attempts_in(draw_svg(drawn))) == MOST_LANES + 10


def test_lanes_that_cannot_be_drawn_are_told() -> None:
    drawn = chart(*gone_agents(MOST_LANES + 3, side_by_side=MOST_LANES + 3))
    assert len(drawn.lanes) == MOST_LANES
    assert "the first 1000 lanes; 3 attempts in 3 more are not drawn" in draw_svg(drawn)


def test_attempts_without_a_beginning_are_told() -> None:
    cost = Tale(state="running").tell(300, "preempted", 2).tell(310, "claimed", 3).tell(410, "finished", 3).cost()
    drawn = chart(cost)
    assert [bar.attempt for bar in drawn.bars] == [3]
    assert "1 attempt not drawn: nobody knows when they began or ended" in draw_svg(drawn)


def test_a_sweep_without_attempts_has_a_picture_too() -> None:
    svg = draw_svg(chart())
    assert "no attempt yet" in svg
    assert attempts_in(svg) == []


HOSTILE = [
    '"><script>alert(1)</script>', "a & b < c > d ' \" e", "]]>", "<!--", "\x00\x07\x1b[31m", "\ud800", "\u202egnp.exe",
    "&#60;b&#62;", "名前", "x" * 500, "--></style>",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str) -> None:
    """As an agent, a run, a title and a reason; in SVG and in a page."""
    tale = Tale(name).tell(0, "suggested").tell(0, "claimed", 1, name).tell(9, "failed", 1, name, reason=name)
    drawn = chart(tale.cost(), title=name)
    svg = draw_svg(drawn)
    root = ElementTree.fromstring(svg)
    assert {one.tag.removeprefix(SVG) for one in root.iter()} <= {
        "svg", "title", "style", "rect", "text", "g", "line", "path",
    }  # fmt: skip
    assert len(attempts_in(svg)) == 1
    page = html_page(drawn)
    assert "<script" not in page
    assert page.count("</style>") == 2
    page.encode()


@given(st.text())
def test_any_text_is_well_formed(raw: str) -> None:
    ElementTree.fromstring(element("text", text(raw), title=raw))


@pytest.mark.parametrize(
    ("value", "written"), [(1.0, "1"), (0.126, "0.13"), (2.5, "2.5"), (-0.001, "0"), (1e6, "1000000")]
)
def test_numbers_are_short(value: float, written: str) -> None:
    assert number(value) == written


def test_long_names_keep_both_ends() -> None:
    assert shortened("box-17.example.org-3", 11) == "box-1…org-3"
    assert shortened("short", 11) == "short"


@given(st.floats(0.001, 3e8))
def test_there_are_a_few_ticks(seconds: float) -> None:
    ticks = int(seconds / tick_step(seconds))
    assert ticks <= 10
    assert ticks >= 3 or seconds < 3


@pytest.mark.parametrize(
    ("seconds", "label"),
    [(0, "0"), (30, "30 s"), (90, "1 min 30"), (900, "15 min"), (3600, "1 h"), (5400, "1 h 30"), (36000, "10 h"),
     (86400, "1 d"), (129600, "1 d 12 h")],
)  # fmt: skip
def test_ticks_are_labelled_as_people_say_them(seconds: int, label: str) -> None:
    assert tick_label(seconds) == label


def test_light_dark_and_by_the_viewer() -> None:
    drawn = chart(two_attempts())
    assert "prefers-color-scheme" in draw_svg(drawn)
    assert "#ffffff" in draw_svg(drawn, dark=False)
    dark = draw_svg(drawn, dark=True)
    assert "prefers-color-scheme" not in dark
    assert "#ffffff" not in dark


def test_a_png_has_twice_the_size() -> None:
    svg = draw_svg(chart(two_attempts()), dark=False)
    png = to_png(svg)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    root = ElementTree.fromstring(svg)
    assert (width, height) == (2 * float(root.attrib["width"]), 2 * float(root.attrib["height"]))


def test_a_png_without_the_extra_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ImportError, match="resvg_py"):
        to_png("<svg/>")
