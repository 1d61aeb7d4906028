"""`lad plot`: the same pictures from both trainers' logs, and one line for what cannot be drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lad_reasoner.report.training_curves import (
    LENGTH_SPAN,
    WINDOW,
    Run,
    draw_categories,
    draw_lengths,
    draw_overview,
    last_values,
    read_runs,
    write_plots,
)
from lad_reasoner.support.errors import DataError, UsageError

FILES = ("training", "response-length", "f1-by-category", "accuracy-by-category")


def easyr1_line(step, *, reward=0.5, length=40.0, **parts):
    return {
        "step": step,
        "critic": {"score": {"mean": reward}},
        "response_length": {"mean": length},
        "actor": {"kl_penalty": 0.01 * step},
        "reward": {"overall": reward, "accuracy": 0.5, "structure": 0.9, "tp": 0.4, "fp": 0.3, "fn": 0.2, **parts},
        "val": {
            "accuracy_reward": 0.6,
            "tp_pushpins_reward": 0.3,
            "fp_pushpins_reward": 0.1,
            "fn_pushpins_reward": 0.1,
        },
    }


def verl_lines(step, *, reward=0.5, length=40.0, **parts):
    line = easyr1_line(step, reward=reward, **parts)
    data = {"critic/score/mean": reward, "response_length/mean": length, "actor/reward_kl_penalty": 0.01 * step}
    sums = {"train": line["reward"], "val": {key.removesuffix("_reward"): value for key, value in line["val"].items()}}
    rewards = [
        {"step": step, "split": split, "sums": values, "counts": dict.fromkeys(values, 1)}
        for split, values in sums.items()
    ]
    return {"step": step, "data": data}, rewards


def write_log(folder: Path, name: str, rows) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def easyr1_run(folder: Path, steps: int = 5, **parts) -> Path:
    return write_log(folder, "experiment_log.jsonl", [easyr1_line(step, **parts) for step in range(1, steps + 1)])


def verl_run(folder: Path, steps: int = 5, **parts) -> Path:
    lines = [verl_lines(step, **parts) for step in range(1, steps + 1)]
    write_log(folder / "attempts" / "001", "verl.jsonl", [line for line, _ in lines])
    write_log(folder / "attempts" / "001", "rewards.jsonl", [row for _, rows in lines for row in rows])
    return folder


def curves_of(axes):
    """Return the lines of an axis without the strokes that mark a cut one."""
    return [line for line in axes.lines if line.get_transform() == axes.transData]


def lines_of(axes) -> dict[str, list[float]]:
    return {line.get_linestyle(): list(line.get_ydata()) for line in curves_of(axes)}


def test_both_trainers_give_the_same_pictures(tmp_path):
    parts = {"accuracy_cable": 0.5, "tp_cable": 0.2, "fp_cable": 0.1, "fn_cable": 0.3}
    theirs = read_runs([str(easyr1_run(tmp_path / "a", **parts))])
    ours = read_runs([str(verl_run(tmp_path / "b", **parts))])
    for draw in (draw_overview, lambda runs: draw_categories(runs, "f1"), draw_lengths):
        drawn = [[lines_of(axes) for axes in draw(runs).axes] for runs in (theirs, ours)]
        assert drawn[0] == drawn[1]
        assert any(drawn[0])


def test_the_panels_show_what_was_logged(tmp_path):
    figure = draw_overview(read_runs([str(easyr1_run(tmp_path / "run"))]))
    panels = {axes.get_title(loc="left"): lines_of(axes) for axes in figure.axes}
    assert panels["mean reward"] == {"-": [0.5] * 5}
    assert panels["accuracy reward"] == {"-": [0.5] * 5, "--": [0.6] * 5}
    assert panels["F1"]["-"] == pytest.approx([0.8 / 1.3] * 5)
    assert panels["KL to the reference (nats a token)"]["-"] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert [text.get_text() for text in figure.legends[0].texts] == ["run", "validation"]


@pytest.mark.parametrize(
    ("values", "from_zero"),
    [((0.0, 0.0), True), ((0.3, 1.0), True), ((0.8, 1.0), False), ((-0.1, 0.5), False)],
)
def test_a_panel_starts_at_zero_where_that_hides_little(values, from_zero):
    rows = [{"step": float(step), "reward": value} for step, value in enumerate(values, 1)]
    panels = {axes.get_title(loc="left"): axes for axes in draw_overview([Run("run", Path(), rows)]).axes}
    axes = panels["mean reward"]
    low, high = axes.get_ylim()
    assert (low == pytest.approx(-0.02 * high)) == from_zero
    assert high > max(values)


def test_figure_5_has_a_line_a_run(tmp_path):
    runs = read_runs(
        [f"without SFT={easyr1_run(tmp_path / 'a')}", f"with SFT={easyr1_run(tmp_path / 'b', length=80.0)}"]
    )
    (axes,) = draw_lengths(runs).axes
    assert [(line.get_label(), line.get_ydata()[0]) for line in curves_of(axes)] == [
        ("without SFT", 40),
        ("with SFT", 80),
    ]


def test_lengths_that_hardly_differ_look_alike(tmp_path):
    runs = read_runs([f"{length}={easyr1_run(tmp_path / str(length), length=length)}" for length in (19.95, 20.2)])
    (axes,) = draw_lengths(runs).axes
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(LENGTH_SPAN)
    (axes,) = draw_lengths(read_runs([str(easyr1_run(tmp_path / "short", length=1.0))])).axes
    assert axes.get_ylim()[0] == 0


def test_single_steps_of_a_category_are_shown_of_a_lone_run(tmp_path):
    parts = {"tp_cable": 0.2, "fp_cable": 0.1, "fn_cable": 0.3}
    folders = [str(easyr1_run(tmp_path / name, **parts)) for name in ("a", "b")]
    for named, lines in ((folders[:1], [0.25, 1.0]), (folders, [1.0, 1.0])):
        cable = draw_categories(read_runs(named), "f1").axes[1]
        assert [line.get_alpha() for line in cable.lines] == lines


def test_categories_of_the_evaluation_come_first_and_have_their_abbreviation(tmp_path):
    parts = {"tp_cable": 0.2, "fp_cable": 0.1, "fn_cable": 0.3}
    figure = draw_categories(read_runs([str(easyr1_run(tmp_path / "run", **parts))]), "f1")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["pushpins (PP)", "cable"]


def test_f1_is_averaged_by_its_confusion_shares():
    shares = [(1.0, 0.0, 0.0), (0.0, 0.5, 0.5)] * WINDOW
    rows = [
        {"step": float(step), "tp_a": tp, "fp_a": fp, "fn_a": fn, "f1_a": float(tp > 0)}
        for step, (tp, fp, fn) in enumerate(shares)
    ]
    steps, values = Run("run", Path(), rows).averaged("f1_a")
    assert len(steps) == len(shares)
    assert values[0] == 1.0
    assert values[-1] == pytest.approx(2 * 0.5 / (2 * 0.5 + 0.5))


@pytest.mark.slow
def test_the_files_are_pictures(tmp_path):
    runs = read_runs([f"a & <b> $x$={easyr1_run(tmp_path / 'run', accuracy_cable=1.0)}"])
    files = write_plots(runs, tmp_path / "deep" / "plots")
    assert sorted(path.name for path in files) == sorted(f"{name}.{end}" for name in FILES for end in ("svg", "png"))
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.verify()
        else:
            assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_what_was_not_logged_is_not_available(tmp_path):
    rows = [{"step": 1, "critic": {"score": {"mean": 0.5}}}, {"step": 2, "critic": {"score": {"mean": float("nan")}}}]
    runs = read_runs([str(write_log(tmp_path / "run", "experiment_log.jsonl", rows))])
    values = last_values(runs[0])
    assert (values["reward"], values["steps"], values["kl"], values["val/f1"]) == (0.5, 2.0, None, None)
    figure = draw_overview(runs)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.texts] == [
        "structure reward",
        "accuracy reward",
        "F1",
        "response length (tokens)",
        "KL to the reference (nats a token)",
    ]
    assert draw_lengths(runs) is None
    assert {path.name for path in write_plots(runs, tmp_path)} == {"training.svg", "training.png"}


def test_one_step_is_a_point_and_a_cut_line_is_left_out(tmp_path):
    folder = easyr1_run(tmp_path / "run", 1)
    with (folder / "experiment_log.jsonl").open("a") as log:
        log.write('{"step": 2, "critic": {"sc')
    (run,) = read_runs([str(folder)])
    assert run.series("reward") == ([1.0], [0.5])
    (line, *_) = draw_overview([run]).axes[0].lines
    assert line.get_marker() == "o"


def test_a_log_file_stands_for_its_folder_and_names_stay_apart(tmp_path):
    one, other = easyr1_run(tmp_path / "a" / "run"), easyr1_run(tmp_path / "b" / "run")
    runs = read_runs([str(one / "experiment_log.jsonl"), str(other), f"third={one}"])
    assert [run.label for run in runs] == [str(one), str(other), "third"]
    assert read_runs([str(easyr1_run(tmp_path / "n=8"))])[0].label == "n=8"  # a folder, not a label


@pytest.mark.parametrize("name", ["experiment_log.jsonl", "verl.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", b"[1]\n3\n", b'{"step": 1, "da', b'{"step": "a"}\n'])
def test_a_log_without_a_step_is_an_error_that_says_what_was_looked_for(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        DataError, match=r"no step was measured: there is no experiment_log\.jsonl or verl\.jsonl here"
    ):
        read_runs([str(tmp_path)])


@pytest.mark.parametrize("named", [["nowhere"], ["a=nowhere"], ["a="], [""], ["pyproject.toml"]])
def test_what_is_no_run_is_named(named):
    with pytest.raises(UsageError, match=r"no such folder\. Name the checkpoint folder"):
        read_runs(named)


def test_two_runs_need_two_names(tmp_path):
    folder = easyr1_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"two runs are named .* Name them"):
        read_runs([f"a={folder}", f"a={folder}"])


@pytest.mark.slow
def test_the_command_prints_the_last_values_and_the_files(tmp_path):
    folder = easyr1_run(tmp_path / "run")
    words = [sys.executable, "-m", "lad_reasoner.commands.lad", "plot", str(folder), "--out", str(tmp_path / "plots")]
    table = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "0.500" in table
    assert str(tmp_path / "plots" / "training.png") in table.splitlines()
    shown = json.loads(subprocess.run([*words, "--json"], capture_output=True, text=True, check=True).stdout)
    assert shown["runs"]["run"]["reward"] == 0.5
    assert all(Path(file).is_file() for file in shown["files"])
    failed = subprocess.run([*words[:4], str(tmp_path)], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {tmp_path}: no step was measured")
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "absent"])
def test_a_notebooks_backend_is_not_needed(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("MPLBACKEND", backend)
    words = ["plot", easyr1_run(tmp_path / "run"), "--out", tmp_path / "plots"]
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_link_to_itself_is_no_run(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="loop"):
        read_runs([str(tmp_path / "loop")])
