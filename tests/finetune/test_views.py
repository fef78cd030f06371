"""What the training tab shows: every state in both languages, and nobody's text as HTML."""

from __future__ import annotations

import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from assets.words import LANGUAGES, Words
from finetune import views, views_loss
from finetune.jobs import ACTIVE, ENDED, Job
from finetune.memory import Shape, estimate
from finetune.plan import LaunchPlan
from finetune.progress import PHASES, Progress
from finetune.spec import DataSpec, ModelSpec, TrainSpec

EVIL = "<img src=x onerror=alert(1)> \"quoted\" 'single' & {n} </div><script>"
FACTS = {"model": "some/model", "data": "naranhi/emotion-ko", "method": "qlora", "rank": 16}
STEP = {
    "step": 7,
    "loss": 1.5,
    "learning_rate": 1e-4,
    "grad_norm": 0.25,
    "tokens_per_second": 1234.5,
    "host_memory": 2**31,
}
JOB = Job("20261123-000000-ab12", "나의 학습", "running", time.time(), facts=FACTS)
PROGRESS = Progress("train", 7, 40, 90.0, [STEP], [{"step": 0, "loss": 2.0}], facts={"total_steps": 40})
PARTS = estimate(Shape(576, 30, 1536, 9, 3, 64, 49152, True), TrainSpec(ModelSpec("m"), DataSpec("d"))).parts
PLAN = LaunchPlan("cpu", 1, (), ("cpu",), "float32", False, ("true",), {}, {}, "fits", PARTS, 8 * 2**30)


@pytest.fixture(params=LANGUAGES)
def words(request: pytest.FixtureRequest) -> Words:
    return Words(request.param)


class Tags(HTMLParser):
    """Opened and closed tags match, and none is a stranger."""

    VOID = ("line", "circle", "polyline", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.open.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def sound(text: str) -> Tags:
    tags = Tags(text)
    assert not tags.seen & {"script", "img"} and "{" not in tags.text.replace("{n}", "")
    return tags


@pytest.mark.parametrize("state", [*ACTIVE, *ENDED])
def test_every_state_has_its_sentence(state: str, words: Words) -> None:
    error = {"key": "train.killed", "values": {"signal": "SIGKILL"}} if state == "failed" else None
    text = sound(views.head(replace(JOB, state=state, error=error), PROGRESS, False, words)).text
    assert words(f"train.state.{state}") in text and "나의 학습" in text and "some/model" in text and "16" in text
    assert (words("train.running.sub") in text) == (state in ("starting", "running"))
    assert ("SIGKILL" in text) == (state == "failed")
    assert (words("train.ended.finished.plain") in text) == (state == "finished")


def test_a_failed_run_never_reads_as_done(words: Words) -> None:
    text = views.head(replace(JOB, state="failed", exit_code=1), PROGRESS, False, words)
    assert words("train.ended.finished.plain") not in text and words("train.crashed", reason=1) in text


def test_how_a_run_ended(words: Words) -> None:
    evals = [{"step": 0, "loss": 2.0}, {"step": 40, "loss": 1.25}]
    text = sound(views.head(replace(JOB, state="finished"), replace(PROGRESS, evals=evals), False, words)).text
    assert words("train.ended.finished", first="2.000", last="1.250") in text
    stopped = replace(JOB, state="stopped")
    assert words("train.ended.stopped", step=7) in views.head(stopped, PROGRESS, False, words)
    assert words("train.ended.stopped.early") in views.head(stopped, Progress(), False, words)
    assert words("train.queued.sub") in views.head(replace(JOB, state="queued", facts={}), Progress(), False, words)


def test_a_run_that_went_back_says_so_once(words: Words) -> None:
    told = {"key": "train.back.diverged", "values": {"step": 34, "back": 20, "rate": 1e-4}}
    progress = replace(Progress(), step=34, notes=[told, {"key": "train.resumed", "values": {"name": "checkpoint-10"}}])
    text = views.head(replace(JOB, state="stopped", error=told), progress, False, words)
    assert text.count("0.0001") == 1 and "34" in text and "20" in text and "checkpoint-10" in text
    assert words("train.ended.stopped", step=34) not in text
    later = views.head(replace(JOB, state="running"), progress, False, words)
    assert later.count("0.0001") == 1


def test_while_it_runs(words: Words) -> None:
    assert words("train.stopping") in views.head(JOB, PROGRESS, True, words)
    text = views.head(JOB, PROGRESS, False, words)
    assert 'aria-valuenow="17.5"' in text and "7 / 40" in text and words("time.minutes", n=2) in text
    unknown = views.head(JOB, Progress(), False, words)
    assert words("train.eta.unknown") in unknown and "0 / –" in unknown and "width:0.0%" in unknown


@pytest.mark.parametrize("phase", [None, *PHASES])
def test_every_phase(phase: str | None, words: Words) -> None:
    text = views.head(JOB, Progress(phase), False, words)
    assert sound(text) and text.count('class="now"') == 1


def test_figures_leave_out_what_is_not_known(words: Words) -> None:
    assert views.figures(JOB, Progress(), words) == ""
    text = sound(views.figures(JOB, PROGRESS, words)).text
    assert "1.500" in text and "1,234" in text and "1.00e-04" in text and "2.0 GB" in text and "2.000" in text
    assert words("train.n.gpu") not in text
    bare = Progress(steps=[{"step": 1, "loss": None}])
    assert words("train.n.loss") not in views.figures(JOB, bare, words)


def test_charts(words: Words) -> None:
    assert words("train.n.eval") in sound(views_loss.loss_chart(PROGRESS, words)).text
    assert views_loss.loss_chart(Progress(), words) == ""
    broken = Progress(steps=[{"step": 1, "loss": None}], total=3)
    assert views_loss.loss_chart(broken, words) == ""
    more = views.more_charts(PROGRESS, words)
    assert sound(more) and more.count("<svg") == 4


def test_samples(words: Words) -> None:
    assert words("train.samples.none") in views.samples(Progress(), words)
    rows = [{"step": n // 2, "prompt": f"질문 {n % 2}", "answer": f"대답 {n}" if n else ""} for n in range(40)]
    text = sound(views.samples(Progress(samples=rows), words)).text
    assert text.index("대답 39") < text.index("대답 38") < text.index("대답 20") and "대답 15" not in text
    assert text.count(words("train.samples.step", step=19)) == 1
    assert "–" in views.samples(Progress(samples=rows[:1]), words)


def test_a_run_whose_loss_ran_away_says_at_which_rate_it_goes_on(words: Words) -> None:
    seen = {"step": 7, "loss": "9.00", "usual": "1.50"}
    for key in ("train.diverged", "train.not_a_number"):
        job = replace(JOB, state="failed", error={"key": key, "values": seen | {"rate": 1e-4}})
        assert "0.0001" in sound(views.head(job, Progress(), False, words)).text
        older = replace(job, error={"key": key, "values": seen})
        assert sound(views.head(older, Progress(), False, words)).text


@pytest.mark.parametrize("state", [*ACTIVE, *ENDED])
def test_nobody_writes_html(state: str, words: Words) -> None:
    facts = dict.fromkeys(FACTS, EVIL)
    note = {"key": "train.resumed", "values": {"name": EVIL}}
    error = {"key": "train.crashed", "values": {"reason": EVIL}}
    job = replace(JOB, name=EVIL, state=state, facts=facts, error=error if state == "failed" else None)
    progress = replace(PROGRESS, notes=[note], samples=[{"step": 1, "prompt": EVIL, "answer": EVIL}])
    for text in (
        views.head(job, progress, False, words),
        views.samples(progress, words),
        views.log(EVIL, words),
        views.error(EVIL),
    ):
        assert EVIL in sound(text).text


def test_log_and_label(words: Words) -> None:
    assert words("train.log.none") in views.log("", words)
    first, second = views.label(JOB, words).split("\n")
    assert first == "나의 학습" and second.startswith(words("train.state.running"))


@pytest.mark.parametrize("fit", ["fits", "tight", "too_big"])
@pytest.mark.parametrize("placement", ["cpu", "single", "ddp", "fsdp"])
def test_the_line_of_the_plan(fit: str, placement: str, words: Words) -> None:
    plan = replace(PLAN, fit=fit, placement=placement, processes=3)
    text = sound(views.plan_line(plan, (100.0, 400.0), words)).text
    assert words("train.plan." + fit) in text and "8.0 GB" in text
    assert ("3" in text.split(",")[0]) == (placement in ("ddp", "fsdp"))
    assert words("train.time.unknown") in views.plan_line(plan, None, words)
    assert "–" not in views.plan_line(plan, (3600.0, 3601.0), words)
