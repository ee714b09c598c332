# /// script
# requires-python = ">=3.11"
# dependencies = ["huggingface_hub>=1.0"]
# ///
"""Run the pipeline on a machine that is gone afterwards, such as a Job of the Hub, and push the results at the end.

    W='regen-hf[train,eval] @ https://huggingface.co/ORG/wheels/resolve/main/regen_hf-0.1.0-py3-none-any.whl'
    uv run --with './dist/regen_hf-0.1.0-py3-none-any.whl[train,eval]' scripts/train_job.py ORG --sample
    hf jobs uv run --flavor a10g-small --timeout 3h --secrets HF_TOKEN --with "$W" scripts/train_job.py ORG --sample

All options but those of `--help` are those of `regen run`. The package itself comes from `--with`, until it is on the
Python index. See docs/jobs.md.
"""

import argparse
import re
import sys
from pathlib import Path

from regen_hf.cli import main as regen
from regen_hf.cli.commands import PARTS, open_run
from regen_hf.cli.parser import make_parser
from regen_hf.errors import RegenError
from regen_hf.hub.publishing import check_push


def main() -> int:
    """Check the settings and what a push needs, run all stages, and push; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("namespace", metavar="ORG", help="the user or organisation to push to")
    parser.add_argument("--folder", default="runs/job", help="the run folder (default: %(default)s)")
    parser.add_argument("--private", action="store_true", help="push to private repositories")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=["dataset", "model"], help="what is pushed (default: %(default)s)"
    )
    options, settings = parser.parse_known_args()
    if re.search("[=/]", options.namespace):  # the value of an option of `regen run`
        parser.error(f"ORG is {options.namespace!r}, expected a user or organisation. Name it before all options.")
    command = ["run", options.folder, *settings]
    try:  # before hours of training
        run = open_run(make_parser(command).parse_args(command))
        check_push(run, options.namespace, options.parts, options.private)
    except (RegenError, OSError) as error:
        print(f"train_job.py: nothing was trained. {error}", file=sys.stderr)
        return 1
    if code := regen(command):
        return code
    private = ["--private"] if options.private else []
    parts = [f"--{part}" for part in options.parts]
    return regen(["push", str(Path(options.folder)), "--namespace", options.namespace, *parts, *private])


if __name__ == "__main__":
    sys.exit(main())
