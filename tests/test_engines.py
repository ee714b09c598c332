"""DuckDB and Spark."""

import os
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")
if not shutil.which("java"):
    pytest.skip("Spark needs Java, which is not installed", allow_module_level=True)
pytestmark = pytest.mark.spark


@pytest.mark.parametrize(
    ("master", "path", "message"),
    [
        ("nowhere", None, "Spark does not start with master 'nowhere'"),
        ("local[2]", "", "Java is missing.*Spark needs Java 17 or newer.*apt-get install.*omit --engine spark"),
    ],
    ids=["no such master", "no java"],
)
def test_spark_that_does_not_start_says_why_in_a_line(tmp_path, master, path, message):
    code = "import sys, pathlib; from regen_hf.engines import Spark; Spark(sys.argv[1], '1GB', pathlib.Path('spill'))"
    given = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    given |= {} if path is None else {"PATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code, master], cwd=tmp_path, capture_output=True, text=True, env=given, check=False
    )
    assert re.search(f"RegenError: {message}", done.stderr)
