"""A local page that compares two images and shows the verdict and the reasoning (gradio 6).

The page reads nothing of the host: uploads go to a folder of the server's own, which is deleted when it ends, and
`serve_guard.py` answers every request that the page itself does not make. Model output is shown as plain text.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from errno import EADDRINUSE
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.inference.ask import Verdict, ask, read_image_file
from lad_reasoner.inference.protocol import Backend
from lad_reasoner.inference.serve_guard import RequestGuard, upload_folder
from lad_reasoner.pairs.images import image_formats
from lad_reasoner.support.errors import LadError, RunError, UsageError, install_hint

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["require_gradio", "serve"]

#: Uploads older than this are deleted; the folder is searched as often, in seconds.
_FORGET_SECONDS: Final = 600

#: Questions that may wait while one is answered; further ones are asked to come back.
_WAITING: Final = 16

#: Rows of the history of a session, and sessions that the server remembers.
_HISTORY: Final = 50
_SESSIONS: Final = 200

_PAGE: Final = files("lad_reasoner.inference") / "serve_page"

_COLUMNS: Final = ("time", "reference", "query", "verdict", "P(yes)", "reasoning")

#: Rendered by `lad build synthetic`: reference, query and what is different.
_EXAMPLES: Final = (
    ("pins-reference.jpg", "pins-missing.jpg", "a part is missing"),
    ("pins-reference.jpg", "pins-normal.jpg", "normal"),
    ("box-reference.jpg", "box-colour.jpg", "a part has another colour"),
)

_VERDICTS: Final = {
    "yes": ("Anomalous", "The model answers “yes”: the query breaks a rule that the reference shows."),
    "no": ("Normal", "The model answers “no”: the query agrees with the reference."),
    None: ("No verdict", "The response has no readable answer. The whole response is shown below."),
}

_EXPORT: Final = """(table) => {
  const cell = (value) => {
    const text = String(value ?? "");
    return `"${(/^[=+\\-@\\t\\r]/.test(text) ? "'" + text : text).replaceAll('"', '""')}"`;
  };
  const rows = [table.headers, ...table.data].map((row) => row.map(cell).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rows.join("\\r\\n") + "\\r\\n"], {type: "text/csv"}));
  link.download = "lad-history.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


@contextmanager
def serve(backend: Backend, *, host: str, port: int, max_megabytes: int) -> Iterator[str]:
    """Run the page for as long as the context lasts, and yield its address.

    Raises:
        UsageError: gradio is not installed.
        RunError: The port is taken, or the address is not of this machine.
    """
    require_gradio()
    _require_free_address(host, port)
    with upload_folder() as folder, _environment(folder):
        from starlette.middleware import Middleware

        page, theme = _build_page(backend, folder, max_megabytes)
        guard = Middleware(RequestGuard, folder=folder, host=host, max_bytes=max_megabytes * 1_000_000)
        try:
            _, address, _ = page.queue(max_size=_WAITING, default_concurrency_limit=1).launch(
                server_name=host,
                server_port=port,
                max_file_size=f"{max_megabytes}mb",
                app_kwargs={"middleware": [guard]},
                allowed_paths=[],
                state_session_capacity=_SESSIONS,
                theme=theme,
                css=(_PAGE / "page.css").read_text(encoding="utf-8"),
                share=False,
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                prevent_thread_lock=True,
                quiet=True,
            )
        except OSError as error:
            raise RunError("the port is taken", where=f"{host}:{port}", remedy="Choose another --port") from error
        try:
            yield str(address)
        finally:
            page.close(verbose=False)


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Set what gradio reads when it is imported and when it stores an upload."""
    values = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_EXAMPLES_CACHE": str(folder / "examples")}
    before = {name: os.environ.get(name) for name in values}
    os.environ |= {**values, "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _require_free_address(host: str, port: int) -> None:
    """Check the address before gradio does: it takes seconds, and its error names options of its own."""
    try:
        create_server((host, port), family=AF_INET6 if ":" in host else AF_INET).close()
    except OSError as error:
        problem = "the port is taken" if error.errno == EADDRINUSE else f"cannot listen: {error.strerror}"
        raise RunError(problem, where=f"{host}:{port}", remedy="Choose another --host or --port") from error


def require_gradio() -> None:
    """Check that the page can be built, without importing gradio, which takes seconds.

    Raises:
        UsageError: gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise UsageError("lad serve needs the package gradio", remedy=install_hint("serve"))


def _build_page(backend: Backend, folder: Path, max_megabytes: int) -> tuple[Any, Any]:
    """Return the gradio page and its theme."""
    import gradio as gr

    accepted = f"{', '.join(image_formats())}; at most {max_megabytes} MB"
    histories: OrderedDict[str, list[list[str]]] = OrderedDict()

    def compare(reference: Any, query: Any, request: gr.Request) -> tuple[Any, ...]:
        history = _history_of(histories, request.session_hash)
        try:
            images = [_uploaded(upload, name, folder) for upload, name in ((reference, "reference"), (query, "query"))]
            verdict = ask(backend, images[:1], images[1])
        except LadError as error:
            return _describe_error(error, accepted), "", "", history
        history.insert(0, _history_row(reference, query, verdict))
        del history[_HISTORY:]
        return _describe(verdict), verdict.reasoning or "(no reasoning)", verdict.response, history

    compare.__annotations__["request"] = gr.Request  # gradio looks for the class, not for its name
    with gr.Blocks(
        title="LAD-Reasoner", analytics_enabled=False, delete_cache=(_FORGET_SECONDS, _FORGET_SECONDS)
    ) as page:
        # The model's name alone: its place is the host's own business.
        gr.HTML(_header(Path(backend.model).name))
        with gr.Row():
            inputs = [
                gr.Image(
                    label=label,
                    type="filepath",
                    sources=["upload", "webcam", "clipboard"],
                    height=320,
                    placeholder=f"Drop an image, paste it, or use the camera\n{accepted}",
                )
                for label in ("Reference: a normal product", "Query: the product to judge")
            ]
        button = gr.Button("Compare", variant="primary", elem_id="compare")
        verdict_box = gr.HTML(_EMPTY, elem_id="verdict")
        reasoning = gr.Textbox(label="Reasoning of the model", interactive=False, lines=4, elem_id="reasoning")
        with gr.Accordion("Whole response", open=False):
            response = gr.Textbox(show_label=False, interactive=False, lines=4)
        _add_examples(gr, inputs, folder)
        with gr.Accordion("History of this session", open=False, elem_id="history"):
            table = gr.Dataframe(headers=list(_COLUMNS), datatype="str", interactive=False, wrap=True)
            export = gr.Button("Export as CSV", size="sm")
        # Without preprocessing, gradio neither opens nor fetches what a question names.
        shown = [verdict_box, reasoning, response]
        asked = button.click(compare, inputs, [*shown, table], api_name="compare", preprocess=False)
        export.click(None, [table], None, js=_EXPORT)
        for image in inputs:
            # A verdict next to images that it is not about would be taken for theirs.
            image.change(None, inputs, shown, js=_CLEAR, cancels=[asked])
    theme = gr.themes.Base(
        primary_hue="cyan", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["ui-monospace"]
    )
    return page, theme


def _header(model: str) -> str:
    return (
        '<div class="lad-top"><h1>Is the query anomalous, compared to the reference?</h1>'
        "<p>Give one image of a normal product and one of the product to judge. "
        f"Model: <strong>{escape(model)}</strong></p></div>"
    )


_EMPTY: Final = '<p class="lad-hint" role="status">The verdict appears here.</p>'
_UNSHOWN: Final = _EMPTY.replace(
    "</p>", " This browser may not show HEIC and TIFF photos; they are compared all the same.</p>"
)

#: The new verdict after an image has changed: none. Most browsers show no HEIC and no TIFF.
_CLEAR: Final = f"""(...images) => {{
  const unshown = images.some((image) => /[.](hei[cf]|tiff?)$/i.test(image?.path ?? ""));
  return [unshown ? {_UNSHOWN!r} : {_EMPTY!r}, "", ""];
}}"""


def _add_examples(gr: Any, inputs: Sequence[Any], folder: Path) -> None:
    """Offer the example pairs, copied to the upload folder, from which alone files are served."""
    own = folder / "pairs"
    own.mkdir()
    for name in {name for *pair, _ in _EXAMPLES for name in pair}:
        (own / name).write_bytes((_PAGE / name).read_bytes())
    pairs = [[str(own / reference), str(own / query)] for reference, query, _ in _EXAMPLES]
    labels = [label for *_, label in _EXAMPLES]
    gr.Examples(pairs, list(inputs), label="Example pairs (synthetic)", example_labels=labels, cache_examples=False)


def _uploaded(upload: Any, name: str, folder: Path) -> Any:
    """Read an upload; a file outside the upload folder was not uploaded."""
    where = f"{name} image"
    path = upload.get("path") if isinstance(upload, dict) else None
    if not isinstance(path, str) or "\0" in path or not Path(path).resolve().is_relative_to(folder):
        raise UsageError("there is no image", where=where, remedy=f"Drop one on the field {name!r}")
    return read_image_file(Path(path), where=where)


def _history_of(histories: OrderedDict[str, list[list[str]]], session: str | None) -> list[list[str]]:
    """Return the history of a session; the oldest sessions are forgotten."""
    history = histories.setdefault(session or "", [])
    histories.move_to_end(session or "")
    while len(histories) > _SESSIONS:
        histories.popitem(last=False)
    return history


def _describe(verdict: Verdict) -> str:
    """Return the verdict in plain words, as HTML without any text of the model.

    Example:
        >>> "Anomalous" in _describe(Verdict("yes", "", 0.9731, "answer_token", True, "", 1.0))
        True
    """
    word, meaning = _VERDICTS[verdict.answer]
    kind = verdict.answer or "none"
    if verdict.score is None:
        score = "<p>This backend gives no probability.</p>"
    else:
        score = (
            f"<p>P(yes) = {verdict.score:.2f}: the probability that the model gives to the answer “anomalous” "
            "rather than “normal”. It is not calibrated: compare it between images, not with 0.5 alone.</p>"
            f'<div class="lad-scale" aria-hidden="true"><span style="left: {verdict.score:.1%}"></span></div>'
            '<div class="lad-ends" aria-hidden="true"><span>0 normal</span><span>anomalous 1</span></div>'
        )
    if verdict.cut:
        meaning += " The response was cut off at --max-new-tokens."
    seconds = f"<p>{verdict.seconds:.1f} s</p>" if verdict.seconds >= 0.05 else ""
    return f'<div class="lad-verdict {kind}" role="status"><h2>{word}</h2><p>{meaning}</p>{score}{seconds}</div>'


def _describe_error(error: LadError, accepted: str) -> str:
    """Return an error as HTML that stays until the next question."""
    return (
        '<div class="lad-verdict error" role="alert"><h2>Not answered</h2>'
        f"<p>{escape(_plain(str(error)))}</p><p>Accepted: {escape(accepted)}.</p></div>"
    )


def _history_row(reference: Any, query: Any, verdict: Verdict) -> list[str]:
    names = [_plain(str(upload.get("orig_name") or Path(upload["path"]).name))[:60] for upload in (reference, query)]
    score = "" if verdict.score is None else f"{verdict.score:.3f}"
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    return [now, *names, _VERDICTS[verdict.answer][0], score, _plain(verdict.reasoning)[:2000]]


def _plain(text: str) -> str:
    """Return a text without control characters."""
    return "".join(mark for mark in text if mark.isprintable() or mark in "\n\t")
