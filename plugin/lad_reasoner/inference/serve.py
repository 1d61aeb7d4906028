"""A page on this machine where one drops two images and reads the verdict and the reasoning (gradio).

The page reads nothing of the host: uploads go to a folder of the server's own, which it deletes when it ends; every
request for a file outside that folder is refused before gradio sees it; whatever a model says is shown as plain text.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import unquote

from lad_reasoner.inference.ask import Verdict, ask, read_image_file
from lad_reasoner.inference.protocol import Backend
from lad_reasoner.support.errors import LadError, RunError, UsageError

__all__ = ["serve"]

#: Uploads older than this are deleted, looked for as often, in seconds.
_FORGET_SECONDS: Final = 600

#: Questions that wait while one is answered; further ones are told to come back.
_WAITING: Final = 16

_POLICY: Final = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"
)

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


@contextmanager
def serve(backend: Backend, *, host: str, port: int, max_megabytes: int) -> Iterator[str]:
    """Run the page while the context lasts.

    Args:
        backend: What answers.
        host: Address to listen on.
        port: Port to listen on.
        max_megabytes: Larger uploads are refused.

    Yields:
        The page's address.

    Raises:
        UsageError: gradio is not installed.
        RunError: The port is taken.
    """
    with TemporaryDirectory(prefix="lad-serve-") as folder:
        # Read by gradio when it is imported and when it stores an upload.
        os.environ |= {
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_EXAMPLES_CACHE": str(Path(folder) / "examples"),
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        page = _build_page(backend, Path(folder))
        from starlette.middleware import Middleware

        try:
            _, address, _ = page.queue(max_size=_WAITING, default_concurrency_limit=1).launch(
                server_name=host,
                server_port=port,
                max_file_size=f"{max_megabytes}mb",
                app_kwargs={"middleware": [Middleware(OwnFilesOnly, folder=Path(folder))]},
                allowed_paths=[],
                share=False,
                show_api=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                prevent_thread_lock=True,
                quiet=True,
            )
        except OSError as error:
            raise RunError(f"{host}:{port}", found=str(error), remedy="choose another --port") from error
        try:
            yield str(address)
        finally:
            page.close(verbose=False)


class OwnFilesOnly:
    """Refuses requests for files outside the upload folder, redirects and proxies, before gradio sees them.

    Args:
        app: The application behind.
        folder: The upload folder.
    """

    def __init__(self, app: Callable[[_Message, _Receive, _Send], Awaitable[None]], *, folder: Path) -> None:
        self._app, self._folder = app, folder.resolve()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer 403, or hand the request on and add the content security policy to its response."""
        if scope["type"] == "http" and not self._allowed(scope["path"]):
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": b"not allowed"})
            return

        async def send_with_policy(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_policy)

    def _allowed(self, path: str) -> bool:
        decoded = unquote(path)  # some clients encode twice
        if "proxy=" in decoded:
            return False
        _, marker, file = decoded.partition("file=")
        if not marker:
            _, marker, file = decoded.partition("/file/")  # gradio's older spelling
        try:
            return not marker or Path(file).resolve().is_relative_to(self._folder)
        except (OSError, ValueError, RuntimeError):  # a NUL byte, a loop of links
            return False


def _build_page(backend: Backend, folder: Path) -> Any:
    """Return the gradio page."""
    try:
        import gradio as gr
    except ImportError as error:
        raise UsageError(
            "lad serve", found="no gradio", expected="it installed", remedy='pip install "lad-reasoner[serve]"'
        ) from error

    def answer(reference: str | None, query: str | None) -> tuple[str, str, str]:
        try:
            images = [_uploaded(path, name, folder) for path, name in ((reference, "reference"), (query, "query"))]
            verdict = ask(backend, images[:1], images[1])
        except LadError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return _headline(verdict), verdict.reasoning or "(no reasoning in the template)", verdict.response

    theme = gr.themes.Base(
        primary_hue="cyan",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    with gr.Blocks(
        title="Logical anomaly detection",
        theme=theme,
        css="#verdict textarea { font-size: 1.5rem; font-weight: 650; }",
        analytics_enabled=False,
        delete_cache=(_FORGET_SECONDS, _FORGET_SECONDS),
    ) as page:
        gr.HTML("<h2>Is the query anomalous, compared to the reference?</h2>")
        with gr.Row():
            # image_mode=None: the file goes to the model as it came.
            inputs = [
                gr.Image(label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=360)
                for label in ("Reference: a normal product", "Query: the product in question")
            ]
        for image in inputs:
            image.preprocess = _path_of_upload
        ask_button = gr.Button("Compare", variant="primary")
        outputs = [
            gr.Textbox(label="Verdict", interactive=False, elem_id="verdict"),
            gr.Textbox(label="Reasoning", interactive=False, lines=5),
        ]
        with gr.Accordion("Whole response", open=False):
            outputs.append(gr.Textbox(show_label=False, interactive=False, lines=5))
        # Its name alone: where it lies is the host's own business.
        gr.Textbox(value=Path(backend.model).name, label="Model", interactive=False)
        asked = ask_button.click(answer, inputs, outputs)
        for image in inputs:
            # A verdict beside an image that it is not about could be taken for that image's.
            image.change(None, None, outputs, js="() => ['', '', '']", cancels=[asked])
    return page


def _path_of_upload(upload: Any) -> str | None:
    """Return where an upload lies, unread: gradio opens it, and shows an error without a reason where it cannot."""
    return None if upload is None else upload.path


def _uploaded(path: str | None, name: str, folder: Path) -> Any:
    """Read an upload; whatever is not in the upload folder was not uploaded.

    Raises:
        DataError: It is no image, or too large.
        UsageError: There is no such upload.
    """
    where = f"{name} image"
    if path is None or not Path(path).resolve().is_relative_to(folder.resolve()):
        raise UsageError(where, found="none", expected="an image", remedy=f"drop one on the field {name!r}")
    return read_image_file(Path(path), where=where)


def _headline(verdict: Verdict) -> str:
    """Return the verdict in one line.

    Example:
        >>> _headline(Verdict("yes", "", 0.9731, "answer_token", True, "", 1.0))
        'Anomalous (yes), P(yes) 0.97'
    """
    words = {"yes": "Anomalous (yes)", "no": "Normal (no)", None: "No readable answer"}[verdict.answer]
    return words if verdict.score is None else f"{words}, P(yes) {verdict.score:.2f}"
