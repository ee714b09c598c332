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
import sys
from pathlib import Path

from huggingface_hub import HfApi

from regen_hf.cli import main as regen
from regen_hf.errors import RegenError
from regen_hf.hub.hub_errors import check_token


def main() -> int:
    """Check the token, run all stages, and push; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("namespace", metavar="ORG", help="the user or organisation to push to")
    parser.add_argument("--folder", default="runs/job", help="the run folder (default: %(default)s)")
    parser.add_argument("--private", action="store_true", help="push to private repositories")
    parser.add_argument(
        "--parts", nargs="*", default=["dataset", "model"], help="what is pushed (default: %(default)s)"
    )
    options, settings = parser.parse_known_args()
    try:
        check_token(HfApi().whoami(), options.namespace)  # before hours of training
    except (RegenError, OSError) as error:
        print(f"train_job.py: the results could not be pushed to {options.namespace}: {error}", file=sys.stderr)
        return 1
    if code := regen(["run", options.folder, *settings]):
        return code
    private = ["--private"] if options.private else []
    parts = [f"--{part}" for part in options.parts]
    return regen(["push", str(Path(options.folder)), "--namespace", options.namespace, *parts, *private])


if __name__ == "__main__":
    sys.exit(main())
