"""A run over a parquet: complete, resumable, and the same however often it is killed."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lad_reasoner.commands.lad import build_app, main
from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.predict import predict
from lad_reasoner.inference.predictions import Sampling, read_predictions, read_run_card
from lad_reasoner.inference.protocol import Answer, BackendOptions
from lad_reasoner.support.errors import UsageError

# A backend whose answer is a digest of the images: it takes time, and it is the same in every run.
WORKER = """
import hashlib, sys, time
from dataclasses import replace
from pathlib import Path
from lad_reasoner.inference.protocol import Answer
from lad_reasoner.support.errors import UsageError
from lad_reasoner.inference.predict import predict
from lad_reasoner.inference.predictions import Sampling

class Digest:
    name, model, model_digest, dtype = "transformers", "digest", None, None
    sampling = Sampling(temperature=1, max_new_tokens=8, seed=0, structured=False, min_pixels=None, max_pixels=None)

    def answer(self, questions):
        for question in questions:
            for sample in question.samples:
                time.sleep(0.002)
                text = hashlib.sha256(question.images[-1].data + bytes([sample])).hexdigest() * 200
                yield Answer(question.pair_id, sample, text, None, None, None, None, "stop", 0.0)

summary = predict(Path(sys.argv[1]), Digest(), Path(sys.argv[2]), samples=3)
print(summary.repaired)
"""


class AlwaysYes:
    """A backend that finds every query anomalous."""

    name, model, model_digest, dtype = "transformers", "always-yes", None, None
    sampling = Sampling(temperature=0, max_new_tokens=8, seed=0, structured=False, min_pixels=None, max_pixels=None)

    def answer(self, questions):
        for question in questions:
            text = "<think> odd </think><answer> yes </answer>"
            yield Answer(question.pair_id, 0, text, None, None, None, None, "stop", 0.0)


def start(tmp_path: Path, data: Path, out: Path) -> subprocess.Popen[str]:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    return subprocess.Popen([sys.executable, str(script), str(data), str(out)], stdout=subprocess.PIPE, text=True)


def contents(out: Path) -> dict[tuple[str, int], str]:
    return {(item.pair_id, item.sample): item.response for item in read_predictions(out)}


@pytest.mark.slow
def test_killed_at_random_moments_a_run_resumes_to_the_same_set(tmp_path, make_pairs) -> None:
    data = make_pairs(60)
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    assert start(tmp_path, data, whole).wait() == 0
    rng, survived = random.Random(0), 0
    for _ in range(12):
        process = start(tmp_path, data, killed)
        while process.poll() is None and (not killed.exists() or killed.stat().st_size == 0):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        survived += process.poll() is not None
        process.kill()
        process.wait()
    assert survived < 12  # some were killed in the middle
    assert start(tmp_path, data, killed).wait() == 0
    assert contents(killed) == contents(whole)
    assert len(killed.read_bytes().splitlines()) == 180  # nothing was asked twice


def test_a_parquet_of_easyr1s_three_columns_is_predicted_and_scored(tmp_path, make_pairs) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lad_reasoner.evaluation.score import score_run

    data, out = tmp_path / "own.parquet", tmp_path / "out.jsonl"
    answers = pa.array(["yes", "no"] * 5)
    pq.write_table(pq.read_table(make_pairs(10)).select(["problem", "images"]).append_column("answer", answers), data)
    assert predict(data, AlwaysYes(), out).written == 10
    score = score_run(out, resamples=10)
    assert (score.pooled.pairs, score.pooled.anomalous) == (10, 5)
    assert score.pooled.metrics["accuracy"].value == 0.5
    assert score.pooled.confusion.tp == 5


def test_a_line_cut_by_a_kill_is_reported_and_asked_again(tmp_path, make_pairs) -> None:
    data, out = make_pairs(5), tmp_path / "out.jsonl"
    assert start(tmp_path, data, out).wait() == 0
    whole = contents(out)
    out.write_bytes(out.read_bytes()[:-1000])
    process = start(tmp_path, data, out)
    assert "last line was broken" in process.communicate()[0]
    assert contents(out) == whole


@pytest.mark.frameworks
def test_the_command_predicts_resumes_and_refuses_to_mix(tmp_path, make_pairs, tiny_model, capsys) -> None:
    data, out = make_pairs(10), tmp_path / "out.jsonl"
    words = ["predict", "--data", str(data), "--model", str(tiny_model), "--out", str(out), "--max-new-tokens", "8"]

    def run(*more: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([*words, *more])
        return int(str(stop.value.code)), capsys.readouterr().err

    code, notes = run("--limit", "4", "--device", "cpu")
    assert code == 0
    assert notes.startswith(f"loading {tiny_model}\n")
    assert "4 responses written, 0 were there" in notes
    code, notes = run("--device", "cpu")
    assert code == 0
    assert "6 responses written, 4 were there" in notes
    card = read_run_card(out)
    assert card["data"] == str(data.resolve())
    assert card["sampling"]["max_pixels"] == 84 * 84
    assert len(contents(out)) == 10
    code, notes = run("--samples", "2")
    assert code == 2
    assert "different sampling" in notes
    assert "Traceback" not in notes


BAD = [
    (["--data", "absent.parquet"], 1, "no such file"),
    (["--samples", "3", "--temperature", "0"], 2, "a --temperature above 0"),
    (["--out", "/dev/full"], 2, "/dev/full: this is a device or pipe"),
    (["--format-prompt", "absent.jinja"], 1, "absent.jinja"),
    (["--model", "no/such folder"], 1, "neither a folder nor a name on the Hugging Face hub"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0][0])
def test_bad_input_is_one_line(tmp_path, make_pairs, case, capsys, monkeypatch) -> None:
    words, code, message = case
    if "--model" in words:
        pytest.importorskip("torch")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = {"--data": str(make_pairs(3)), "--model": str(tmp_path), "--out": str(tmp_path / "o.jsonl")}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    with pytest.raises(SystemExit) as stop:
        main(["predict", *(word for item in given.items() for word in item)])
    captured = capsys.readouterr()
    assert stop.value.code == code
    errors = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert captured.out == ""


@pytest.mark.parametrize(("options", "said"), [({"samples": 0}, "--samples: 0"), ({"limit": 0}, "--limit: 0")])
def test_an_option_out_of_bounds_writes_nothing(tmp_path, make_pairs, options, said) -> None:
    with pytest.raises(UsageError, match=f"{said} is not a number of at least 1"):
        predict(make_pairs(2), AlwaysYes(), tmp_path / "out.jsonl", **options)
    with pytest.raises(UsageError, match="--samples 2 needs a --temperature above 0"):
        predict(make_pairs(2), AlwaysYes(), tmp_path / "out.jsonl", samples=2)
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example() -> None:
    assert "Examples:\n  lad predict --data" in CliRunner().invoke(build_app(), ["predict", "--help"]).output
    heavy = "{'torch', 'pyarrow', 'pandas', 'transformers'} & set(sys.modules)"
    code = f"import sys; from lad_reasoner.commands.lad import build_app; build_app(); sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.frameworks
def test_multiple_choice_questions_are_asked_for_a_letter_and_get_no_score(tmp_path, make_pairs, tiny_model) -> None:
    from lad_reasoner.pairs.schema import Choice

    choice = Choice("Object Analysis", "What is it?", {"A": "a pin", "B": "a bag"}, "B")
    data, out = make_pairs(3, dataset="mmad", choice=choice), tmp_path / "p.jsonl"
    common = ["predict", "--data", str(data), "--model", str(tiny_model), "--max-new-tokens", "4"]
    done = CliRunner().invoke(build_app(), [*common, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert read_run_card(out)["prompt_template"].splitlines()[-1] == "Answer with the letter of the right option."
    assert {prediction.score for prediction in read_predictions(out)} == {None}
    with pytest.raises(SystemExit) as stop:
        main([*common, "--structured", "--out", str(tmp_path / "s.jsonl")])
    assert stop.value.code == 2
    assert not (tmp_path / "s.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "tokens"),
    [((), 512), (("--structured",), 2048), (("--structured", "--max-new-tokens", "99"), 99)],
)
def test_the_template_has_room_for_as_much_reasoning(make_pairs, tmp_path, monkeypatch, words, tokens) -> None:
    asked = []
    monkeypatch.setattr("lad_reasoner.inference.backends.load.load_backend", lambda _, options: asked.append(options))
    command = ["predict", "--data", str(make_pairs(1)), "--model", "m", "--out", str(tmp_path / "p.jsonl"), *words]
    CliRunner().invoke(build_app(), command)
    assert [options.max_new_tokens for options in asked] == [tokens]


@pytest.mark.parametrize("backend", ["transformers", "vllm", "openai"])
def test_too_few_tokens_for_the_template_cost_no_model_load(backend) -> None:
    options = BackendOptions(model="no-such-model", structured=True, max_new_tokens=12)
    with pytest.raises(UsageError, match="12 tokens per response leave no room"):
        load_backend(backend, options)
