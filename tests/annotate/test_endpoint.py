"""`lad annotate --writer model` against an endpoint that misbehaves: nothing is lost, nothing is paid for twice."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.inference.test_openai_hostile import BAD

from lad_datasets.annotate.annotate import annotate_with_model
from lad_datasets.annotate.costs import Prices
from lad_datasets.annotate.options import ModelOptions, is_local
from lad_datasets.annotate.run import Runner
from lad_datasets.annotate.store import Answered, RunCard, Store
from lad_datasets.annotate.subjects import Subject, find_subjects
from lad_reasoner.support.errors import DataError, RunError, UsageError
from lad_reasoner.support.findings import Findings

if TYPE_CHECKING:
    from tests.annotate.conftest import Server, Trees

pytestmark = pytest.mark.slow

KEY = "sk-secret-0123456789"
PRICES = Prices(prompt=1.0, completion=10.0)  # a reply of the test server: 400 and 100 tokens, 0.0014 USD


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAD_API_KEY", KEY)


@pytest.fixture
def subjects(trees: Trees) -> list[Subject]:
    return find_subjects(trees.roots, mmad_root=trees.mmad, findings=Findings(quiet=True))


def options(server: Server, **changes: Any) -> ModelOptions:
    plain = ModelOptions(
        base_url=server.url,
        model="tiny",
        key_variable="LAD_API_KEY",
        max_pixels=100_000,
        max_tokens=200,
        attempts=2,
        concurrency=4,
        per_minute=None,
        timeout=30.0,
        tries=4,
        structured="json_schema",
        temperature=None,
        backoff=0.02,
        prices=None,
        budget=None,
    )
    return replace(plain, **changes)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "annotations.jsonl").read_text().splitlines()]


def test_every_image_is_annotated_and_asked_about_once(
    server: Server, subjects: list[Subject], tmp_path: Path
) -> None:
    server.delay = 0.05
    summary = annotate_with_model(subjects, tmp_path, options(server), Findings(quiet=True))
    assert summary["counts"] == {"images": 28, "pairs": 16 * 4 + 12 * 2}
    assert {row["writer"] for row in rows(tmp_path)} == {"tiny"}
    assert set(server.asked.values()) == {1}
    assert 1 < server.most_in_flight <= 4
    body = server.bodies[0]
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["pairs"]  # type: ignore[index]
    annotate_with_model(subjects, tmp_path, options(server), Findings(quiet=True))
    assert set(server.asked.values()) == {1}  # a second run has nothing to ask


@pytest.mark.parametrize("fault", ["busy", "broken", "hang", "drip", "cut"])
def test_a_passing_fault_is_waited_for(server: Server, subjects: list[Subject], tmp_path: Path, fault: str) -> None:
    server.behave = lambda key, times: fault if times <= 2 and "bottle" in key else "ok"
    findings = Findings(quiet=True)
    timeout = 1.0 if fault in {"hang", "drip"} else 30.0  # a reply on a busy machine may take a second too
    summary = annotate_with_model(subjects[:10], tmp_path, options(server, timeout=timeout, tries=8), findings)
    assert summary["counts"]["images"] == 10
    assert findings.counts["retry"] >= 1
    if fault not in {"hang", "drip"}:
        assert max(server.delivered.values()) == 1


def test_retry_after_is_obeyed_by_all(server: Server, subjects: list[Subject], tmp_path: Path) -> None:
    server.behave = lambda key, times: "busy" if sum(server.asked.values()) <= 3 else "ok"
    started = time.monotonic()
    annotate_with_model(subjects[:3], tmp_path, options(server, backoff=0.0), Findings(quiet=True))
    assert time.monotonic() - started >= 0.05


def test_a_fault_that_does_not_pass_is_named_and_asked_about_by_the_next_run(
    server: Server, subjects: list[Subject], tmp_path: Path
) -> None:
    server.behave = lambda key, times: "broken" if "broken_large/001" in key else "ok"
    findings = Findings(quiet=True)
    with pytest.raises(RunError, match="1 of 28 images not annotated"):
        annotate_with_model(subjects, tmp_path, options(server), findings)
    assert "broken_large/001.png: status 500 (4 tries)" in findings.of("failed")[0]
    assert len({row["subject"] for row in rows(tmp_path)}) == 27  # what was answered is there all the same
    server.behave = lambda key, times: "ok"
    annotate_with_model(subjects, tmp_path, options(server), Findings(quiet=True))
    assert len({row["subject"] for row in rows(tmp_path)}) == 28
    assert max(server.delivered.values()) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no_json", "no chat completion"),
        ("prose", "Invalid JSON"),
        ("wrong_schema", "pairs: Field required"),
        ("double", "topics detection, detection"),
        ("huge", "larger than any reply"),
        ("cut_short", "cut at --max-tokens"),
    ],
)
def test_an_unfit_reply_is_kept_named_and_asked_for_once_more(
    server: Server, subjects: list[Subject], tmp_path: Path, fault: str, reason: str
) -> None:
    server.behave = lambda key, times: fault if "bottle" in key else "ok"
    findings = Findings(quiet=True)
    summary = annotate_with_model(subjects[:10], tmp_path, options(server), findings)
    assert summary["counts"]["invalid"] == 8
    assert all(reason in line for line in findings.of("invalid"))
    answers = [
        Answered.model_validate_json(line)
        for line in (tmp_path / "records.jsonl").read_text().splitlines()
        if '"answered"' in line
    ]
    assert sum("bottle" in answer.id for answer in answers) == 16  # two attempts each, both paid, both kept
    server.behave = lambda key, times: "ok"
    annotate_with_model(subjects[:10], tmp_path, options(server), Findings(quiet=True))
    assert sum(server.asked.values()) == 8 * 2 + 2  # attempts are used up: nothing is asked again
    summary = annotate_with_model(subjects[:10], tmp_path, options(server, attempts=3), Findings(quiet=True))
    assert summary["counts"]["images"] == 10


def test_malformed_replies_cost_their_images_alone(
    server: Server, subjects: list[Subject], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each of 24 images meets two malformed replies; the others are annotated, and the key is nowhere."""
    cases = list(BAD.values())
    numbers = {subject.id: number for number, subject in enumerate(subjects)}

    def raw(key: str) -> tuple[int, bytes, dict[str, str]]:
        name, _, attempt = key.partition("#")
        return cases[(2 * numbers[name] + int(attempt) - 1) % len(cases)]

    server.raw = raw
    server.behave = lambda key, times: "raw" if numbers[key.partition("#")[0]] < len(cases) // 2 else "ok"
    findings = Findings(quiet=True)
    summary = annotate_with_model(subjects, tmp_path, options(server, concurrency=1), findings)
    bad = len(cases) // 2
    assert (summary["counts"]["invalid"], summary["counts"]["images"]) == (bad, len(subjects) - bad)
    assert sum(server.asked.values()) == 2 * bad + len(subjects) - bad
    shown = "".join(capfd.readouterr()) + "".join(file.read_text() for file in tmp_path.glob("*.json*"))
    assert KEY not in shown


@pytest.mark.parametrize("fault", ["refuse", "filter"])
def test_a_refusal_is_final(server: Server, subjects: list[Subject], tmp_path: Path, fault: str) -> None:
    server.behave = lambda key, times: fault if "bottle" in key else "ok"
    summary = annotate_with_model(subjects[:10], tmp_path, options(server), Findings(quiet=True))
    assert (summary["counts"]["refused"], summary["counts"]["images"]) == (8, 2)
    assert set(server.asked.values()) == {1}


def test_a_fenced_reply_is_read(server: Server, subjects: list[Subject], tmp_path: Path) -> None:
    server.behave = lambda key, times: "fenced"
    assert annotate_with_model(subjects[:2], tmp_path, options(server), Findings(quiet=True))["counts"]["images"] == 2


@pytest.mark.parametrize(
    ("fault", "match"),
    [("unauthorized", "API key is wrong"), ("out_of_money", "the quota is used up"), ("reject", "--structured")],
)
def test_what_no_request_can_survive_stops_the_run(
    server: Server, subjects: list[Subject], tmp_path: Path, fault: str, match: str
) -> None:
    server.behave = lambda key, times: fault
    with pytest.raises(RunError, match=match):
        annotate_with_model(subjects, tmp_path, options(server), Findings(quiet=True))
    assert sum(server.asked.values()) <= 12


def test_a_dead_endpoint_stops_the_run(server: Server, subjects: list[Subject], tmp_path: Path) -> None:
    server.close()
    with pytest.raises(RunError, match="8 requests failed in a row"):
        annotate_with_model(subjects, tmp_path, options(server, tries=1), Findings(quiet=True))


def test_the_key_is_sent_and_never_kept(
    server: Server, subjects: list[Subject], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.behave = lambda key, times: "echo" if "good" in key else "unauthorized"
    with pytest.raises(RunError) as caught:
        annotate_with_model(subjects, tmp_path, options(server, concurrency=1), Findings())
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    out, err = capfd.readouterr()
    assert KEY not in out + err + str(caught.value)
    for file in tmp_path.rglob("*.json*"):
        assert KEY not in file.read_text()


def test_a_key_is_needed_elsewhere_but_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_local("http://127.0.0.1:8000/v1")
    assert is_local("http://localhost:8000/v1")
    assert not is_local("https://api.example.com/v1")
    for url in ("ftp://x/v1", "api.example.com", "https://me:secret@example.com/v1", "https://example.com/v1?key=1"):
        with pytest.raises(UsageError, match="--base-url"):
            is_local(url)


def test_the_rate_is_kept(server: Server, subjects: list[Subject], tmp_path: Path) -> None:
    started = time.monotonic()
    annotate_with_model(subjects[:6], tmp_path, options(server, per_minute=600), Findings(quiet=True))
    assert time.monotonic() - started >= 0.5  # five intervals of 0.1 s


def test_the_budget_is_never_exceeded(server: Server, subjects: list[Subject], tmp_path: Path) -> None:
    bounded = options(server, prices=PRICES, budget=0.02)
    with pytest.raises(RunError, match="budget"):
        annotate_with_model(subjects, tmp_path, bounded, Findings(quiet=True))
    paid = 0.0014 * len(server.billed)
    assert 0.01 < paid <= 0.02
    with pytest.raises(RunError, match="budget"):  # what was spent counts in the next run too
        annotate_with_model(subjects, tmp_path, bounded, Findings(quiet=True))
    assert 0.0014 * len(server.billed) <= 0.02
    summary = annotate_with_model(subjects, tmp_path, replace(bounded, budget=1.0), Findings(quiet=True))
    assert summary["cost_usd"] == pytest.approx(0.0014 * 28)


def test_what_may_have_been_charged_counts_against_the_budget(
    server: Server, subjects: list[Subject], tmp_path: Path
) -> None:
    server.behave = lambda key, times: "cut"
    with pytest.raises(RunError):
        annotate_with_model(subjects, tmp_path, options(server, prices=PRICES, budget=0.02), Findings(quiet=True))
    events = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    uncertain = sum(event["cost_bound"] for event in events if event["event"] == "failed")
    assert 0 < uncertain <= 0.02
    assert sum(server.asked.values()) * 0.002 <= 0.02  # 200 tokens of reply alone are 0.002 USD a try


def test_another_model_or_prompt_needs_another_folder(server: Server, subjects: list[Subject], tmp_path: Path) -> None:
    annotate_with_model(subjects[:1], tmp_path, options(server), Findings(quiet=True))
    with pytest.raises(UsageError, match="different model"):
        annotate_with_model(subjects[:1], tmp_path, options(server, model="other"), Findings(quiet=True))


def test_an_unreadable_image_is_named_and_the_others_annotated(
    server: Server, subjects: list[Subject], tmp_path: Path
) -> None:
    subjects[3].image.write_bytes(b"\x89PNG broken")
    findings = Findings(quiet=True)
    summary = annotate_with_model(subjects, tmp_path / "qa", options(server), findings)
    assert summary["counts"]["unreadable"] == 1
    assert summary["counts"]["images"] == 27
    assert str(subjects[3].image) in findings.of("unreadable")[0]


CARD = RunCard(model="m", base_url="http://x/v1", prompt_sha256="0", max_pixels=1)


def answer(number: int) -> Answered:
    return Answered(id=f"s{number}", attempt=1, text="x" * 50)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_broken_last_line_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    with Store(tmp_path, CARD, Findings(quiet=True)) as store:
        for number in range(3):
            store.append(answer(number))
    content = store.path.read_bytes()
    store.path.write_bytes(content[:-cut])
    findings = Findings(quiet=True)
    with Store(tmp_path, CARD, findings) as store:
        whole = 3 if cut == 1 else 2  # without its line end alone, the line is still whole
        assert sorted(store.answers) == [f"s{n}" for n in range(whole)]
        assert findings.counts["broken line"] == 3 - whole
        store.append(answer(9))
    with Store(tmp_path, CARD, Findings(quiet=True)) as store:
        assert "s9" in store.answers
    assert store.path.read_bytes().startswith(content[:-cut])  # nothing was deleted


def test_a_broken_line_in_the_middle_and_a_doubled_one_are_passed_over(tmp_path: Path) -> None:
    with Store(tmp_path, CARD, Findings(quiet=True)) as store:
        store.append(answer(1))
        line = store.path.read_text().splitlines()[-1]
        store.append(answer(2))
    store.path.write_text(store.path.read_text().replace(line, f"{line}\n{line}\n{{broken"))
    findings = Findings(quiet=True)
    with Store(tmp_path, CARD, findings) as store:
        assert {name: len(answers) for name, answers in store.answers.items()} == {"s1": 1, "s2": 1}
    assert findings.counts["broken line"] == 1


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with (
        Store(tmp_path, CARD, Findings(quiet=True)),
        pytest.raises(RunError, match="another process"),
        Store(tmp_path, CARD, Findings(quiet=True)),
    ):
        pass


def test_a_full_disk_gives_up_its_reserve_before_a_reply(
    server: Server, subjects: list[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at the tenth write: the reserve takes what is in flight, and the run stops."""
    reserve = tmp_path / ".reserve"
    real, written = os.write, 0

    def write(file: int, data: bytes) -> int:
        nonlocal written
        written += 1
        if written > 10 and reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data)

    monkeypatch.setattr("os.write", write)
    with pytest.raises(RunError, match=r"[Ff]ree some space"):
        annotate_with_model(subjects, tmp_path, options(server), Findings(quiet=True))
    monkeypatch.undo()
    monkeypatch.setenv("LAD_API_KEY", KEY)
    billed = len(server.billed)
    assert 0 < billed < 28
    with Store(
        tmp_path,
        RunCard.model_validate_json((tmp_path / "records.jsonl").read_text().splitlines()[0]),
        Findings(quiet=True),
    ) as store:
        assert len(store.answers) == billed  # every reply that was paid for is there
    annotate_with_model(subjects, tmp_path, options(server), Findings(quiet=True))
    assert set(server.asked.values()) == {1}


@pytest.mark.parametrize("fault", [DataError("no space left on device"), KeyError("surprise")])
def test_any_fault_is_raised_as_itself_after_the_replies_in_flight(
    server: Server, subjects: list[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    real, begun = Runner._attempt, 0

    async def attempt(self: Runner, *arguments: Any) -> bool:
        nonlocal begun
        begun += 1
        if begun == 3:
            raise fault
        return await real(self, *arguments)

    monkeypatch.setattr(Runner, "_attempt", attempt)
    with pytest.raises(type(fault)) as raised:
        annotate_with_model(subjects, tmp_path, options(server), Findings(quiet=True))
    assert raised.value is fault
    card = RunCard.model_validate_json((tmp_path / "records.jsonl").read_text().splitlines()[0])
    with Store(tmp_path, card, Findings(quiet=True)) as store:
        assert len(store.answers) == len(server.billed) >= 2


def test_a_file_that_may_not_grow_loses_the_line_being_written_and_says_so(
    trees: Trees, server: Server, subjects: list[Subject], tmp_path: Path
) -> None:
    """A real refusal by the system: the size of files is limited, so a line fits only in part."""
    limit = 8 << 20  # above the reserve's size, so that the records' own growth meets it

    def confine() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = tmp_path / "qa"
    with Store(
        out,
        RunCard(model="tiny", base_url=server.url, prompt_sha256=_digest(), max_pixels=1003520),
        Findings(quiet=True),
    ) as store:
        store.append(Answered(id="padding", attempt=1, text="x" * (limit - 2500)))
    size = store.path.stat().st_size
    run = subprocess.run(
        _lad(trees, server, out, "--concurrency", "1"), preexec_fn=confine, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1, run.stderr
    assert "the disk takes no further line (File too large)" in run.stderr
    assert "Traceback" not in run.stderr
    lines = store.path.read_bytes()[size:].splitlines()
    kept = [json.loads(line)["id"] for line in lines if json.loads(line)["event"] == "answered"]  # all lines are whole
    assert len(server.billed) - len(kept) <= 1
    run = subprocess.run(_lad(trees, server, out), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len({row["subject"] for row in rows(out)}) == 28


def _digest() -> str:
    from lad_datasets.annotate.prompt import prompt_digest

    return prompt_digest()


def _lad(trees: Trees, server: Server, out: Path, *more: str) -> list[str]:
    """Return the command line of `lad annotate`, which works without an entry point."""
    asked = ["--writer", "model", "--model", "tiny", "--base-url", server.url, "--out", str(out)]
    quick = ["--backoff", "0.02", "--timeout", "30"]
    return [sys.executable, "-m", "lad_reasoner.commands.lad", "annotate", *trees.arguments(), *asked, *quick, *more]


def test_killed_at_twenty_moments_it_ends_with_the_same_set_and_pays_nothing_twice(
    trees: Trees, server: Server, tmp_path: Path
) -> None:
    whole = subprocess.run(_lad(trees, server, tmp_path / "whole"), capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr
    expected = (tmp_path / "whole" / "annotations.jsonl").read_bytes()

    other = type(server)()
    rng = random.Random(7)
    other.behave = lambda key, times: rng.choice(["ok", "ok", "ok", "busy", "broken", "cut"])
    other.delay = 0.15
    out = tmp_path / "killed"
    kills = in_flight = 0
    while kills < 20:
        before = sum(other.asked.values())
        run = subprocess.Popen(_lad(trees, other, out, "--concurrency", "2"), stderr=subprocess.PIPE, text=True)
        wanted = rng.randrange(0, 3)
        deadline = time.monotonic() + 60
        while run.poll() is None and sum(other.asked.values()) - before <= wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        run.send_signal(signal.SIGKILL)
        _, said = run.communicate()
        kills += 1
        in_flight += said.count("in flight: ")
    other.behave = lambda key, times: "ok"
    other.delay = 0.0
    last = subprocess.run(_lad(trees, other, out), capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert (out / "annotations.jsonl").read_bytes() == expected
    assert set(other.billed.values()) == {1}  # an endpoint that knows idempotency keys charged each question once
    recorded = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines() if line.strip()]
    answered = [event["id"] for event in recorded if event["event"] == "answered"]
    assert len(answered) == len(set(answered)) == 28
    # One that does not may have charged what was in flight when it was killed, which the next run names; no more.
    assert sum(other.delivered.values()) - 28 <= in_flight + 2
    other.close()


def test_an_interrupted_run_keeps_what_is_in_flight(trees: Trees, server: Server, tmp_path: Path) -> None:
    server.delay = 0.4
    run = subprocess.Popen(_lad(trees, server, tmp_path / "qa"), stderr=subprocess.PIPE, text=True)
    while not server.in_flight and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "(interrupted). Run the same command again to continue." in said
    assert "Traceback" not in said
    events = [json.loads(line) for line in (tmp_path / "qa" / "records.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "answered" for event in events) == len(server.billed) > 0


def test_a_dry_run_sends_nothing_and_tells_the_cost(trees: Trees, server: Server, tmp_path: Path) -> None:
    prices = ["--price-in", "1", "--price-out", "10", "--dry-run", "--json"]
    done = subprocess.run(_lad(trees, server, tmp_path / "qa", *prices), capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert told["requests"] == 28
    assert told["cost"] == pytest.approx((told["prompt_tokens"] + 10 * told["completion_tokens"]) / 1e6)
    assert told["cost_bound"] > told["cost"]
    assert not server.asked
    assert not (tmp_path / "qa").exists()


def test_a_budget_needs_prices(trees: Trees, server: Server, tmp_path: Path) -> None:
    words = _lad(trees, server, tmp_path / "qa", "--budget", "1")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "--budget" in done.stderr) == (2, True)
