"""Demo of a fused recommender language model: answers about a shopper's purchase history, with explanations.

`config.json` names the model and the dataset: repositories on the Hub at a commit, or folders.
"""

from pathlib import Path

import gradio as gr
from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError
from start import QUEUE, NotReadyError, fair, loading, problem

try:
    import page
    import programs
    import steps

    with loading("An answer of the model", programs.CONFIG["model"]):
        steps.check()
    demo: gr.Blocks = page.demo
except NotReadyError as error:
    demo = problem(error)

if __name__ == "__main__":
    fair(demo.queue(max_size=QUEUE)._queue)
    folder = Path(__file__).parent
    demo.launch(
        # Fonts of the visitor's machine, so that the page loads nothing from other servers.
        theme=gr.themes.Default(primary_hue="emerald", font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
            button_primary_background_fill="*primary_700",
            button_primary_background_fill_hover="*primary_800",
            button_primary_background_fill_dark="*primary_700",
            button_primary_background_fill_hover_dark="*primary_800",
        ),
        css_paths=folder / "style.css",
        head=f"<script>{(folder / 'page.js').read_text(encoding='utf-8')}</script>",
        max_file_size=1,  # the page takes no files
        mcp_server=True,
        app_kwargs={
            "exception_handlers": {
                FnIndexInferError: lambda *_: JSONResponse({"detail": "There is no such step."}, 404)
            }
        },
    )
