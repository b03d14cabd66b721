"""The page as a gradio application."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import gradio as gr
from fastapi import FastAPI

from warmstart.page import guard, rendering
from warmstart.page.menu import Menu
from warmstart.page.summaries import Request, View, summarize

WAITING = 4  # requests that wait; a further one is rejected
MOST_BEAMS = 8
_NONE = "none"
_QUEUE = "model"  # events that use a model wait for each other
# Fonts of the user's system: gradio's own are fetched from other hosts.
_FONTS: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}


def application(menu: Menu) -> FastAPI:
    """Return the page as an ASGI application.

    Args:
        menu: The models; the first one is loaded.
    """
    mounted: FastAPI = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        build(menu).queue(max_size=WAITING, default_concurrency_limit=1, api_open=False),
        path="/",
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        footer_links=[],
        theme=gr.themes.Default(primary_hue="indigo", secondary_hue="indigo", **_FONTS),
        css=_file("page.css"),
        js=_file("page.js").replace("LARGEST", str(guard.LARGEST)).replace("TOO_LONG", json.dumps(guard.too_long())),
    )
    return mounted


def build(menu: Menu) -> Any:
    """Build the page as ``gradio.Blocks``.

    Args:
        menu: The models; the first one is loaded.
    """
    search = menu.load(menu.paths[0]).summarizer.search
    examples = menu.examples()
    most = max(128, 2 * search.max_new_tokens)
    with gr.Blocks(title=f"Summaries by {menu.paths[0]}", analytics_enabled=False) as page:
        gr.HTML("<h1>Summaries</h1>")
        about = gr.HTML(_about(menu, menu.paths[0], _NONE))
        titles = [(_title(one.document), i) for i, one in enumerate(examples)]
        box: Any = {"filterable": False, "min_width": 250}
        with gr.Row(elem_id="ws-menu"):
            first = gr.Dropdown(menu.paths, value=menu.paths[0], label="Model", **box)
            second = gr.Dropdown(
                [_NONE, *menu.paths], value=_NONE, label="Compare with", visible=len(menu.paths) > 1, **box
            )
            example: Any = gr.Dropdown(titles, value=None, label="Examples", **box)
        # A fixed height: a growing box is laid out several times for each change, which is slow for a long text.
        document = gr.Textbox(
            label="Text", lines=10, max_lines=10, autoscroll=False, placeholder="Paste a text, or open a file."
        )
        with gr.Row():
            submit = gr.Button("Summarize", variant="primary", elem_id="ws-submit")
            stop = gr.Button("Stop", interactive=False, elem_id="ws-stop")
            opener = gr.Button("Open a text file", elem_id="ws-open")
        reference = gr.Textbox(label="Reference summary (optional), for ROUGE", lines=2, max_lines=6)
        with gr.Accordion("Search: beams and lengths", open=False), gr.Row():
            beams: Any = gr.Slider(
                *(1, MOST_BEAMS),
                value=min(search.num_beams, MOST_BEAMS),
                step=1,
                label="Beams (1 shows words at once)",
            )
            shortest: Any = gr.Slider(0, most, value=search.min_new_tokens, step=1, label="Shortest summary (tokens)")
            longest: Any = gr.Slider(1, most, value=search.max_new_tokens, step=1, label="Longest summary (tokens)")
        status = gr.HTML("", elem_id="ws-state")
        with gr.Row(elem_id="ws-results"):
            left, right = gr.HTML("", min_width=280), gr.HTML("", min_width=280, visible=False)
        baselines = gr.HTML("")
        gr.HTML(
            '<p class="ws-note">Texts are only sent to the machine that runs this page, and are not stored. '
            "The first sentences of a news article are a strong baseline.</p>"
        )
        quiet: Any = {"show_progress": "hidden", "api_visibility": "private"}
        shown = [status, left, right, baselines, submit, stop]

        def on_submit(*values: Any) -> Iterator[Any]:
            text, ideal, one, other, *numbers = values
            paths = [one] if other in (_NONE, one) else [one, other]
            for view in summarize(menu, Request(text or "", ideal or "", paths, *map(int, numbers))):
                yield _updates(view)

        def on_stop() -> Any:
            return [rendering.status(View(status="Stopped.")), gr.skip(), gr.skip(), gr.skip(), *_buttons(False)]

        def on_example(number: Any) -> Any:
            chosen = examples[number]
            return chosen.document, chosen.reference

        running = submit.click(
            on_submit,
            [document, reference, first, second, beams, shortest, longest],
            shown,
            concurrency_id=_QUEUE,
            concurrency_limit=1,
            trigger_mode="once",
            **quiet | {"show_progress": "minimal", "show_progress_on": status},
        )
        stop.click(on_stop, None, shown, cancels=[running], **quiet)
        opener.click(None, None, [document, status], js=_file("open_file.js"), **quiet)
        example.input(on_example, example, [document, reference], **quiet)
        for menu_box in (first, second):
            menu_box.input(lambda *paths: _about(menu, *paths), [first, second], about, **quiet)
    return page


def _updates(view: View) -> list[Any]:
    texts = [rendering.summary(one) for one in view.summaries]
    left, right = [*texts, "", ""][:2]
    return [
        *(rendering.status(view), left, gr.update(value=right, visible=bool(right))),
        *(rendering.baselines(view.baselines), *_buttons(view.is_busy)),
    ]


def _buttons(is_busy: bool) -> list[Any]:
    submit = gr.update(value="Summarizing\u2026" if is_busy else "Summarize", interactive=not is_busy)
    return [submit, gr.update(interactive=is_busy)]


def _about(menu: Menu, first: str, second: str) -> str:
    paths = [first] if second in (_NONE, first) else [first, second]
    return rendering.about([(path, menu.about(path)) for path in paths])


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}\u2026"


def _file(name: str) -> str:
    return (files("warmstart.page") / name).read_text(encoding="utf-8")
