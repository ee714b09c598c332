"""A process that has imported torch and transformers, and runs programs in its forks.

A new interpreter takes 5 s of CPU to import both. The process imports nothing of this package.
"""

import json
import os
import subprocess
import sys
import tempfile

SERVER = """
import json, os, sys, traceback
from transformers import dynamic_module_utils
from transformers.models.llama import modeling_llama

for line in sys.stdin:
    program, arguments, environment, folder, errors = json.loads(line)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(os.open(errors, os.O_WRONLY), 2)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            dynamic_module_utils.HF_MODULES_CACHE = environment["HF_MODULES_CACHE"]  # was read by the import
            sys.argv = ["-c", *arguments]
            exec(program, {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """Starts the process when the first program is run."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self):
        self._process = None

    def run(self, command, *, env, **_):
        """Replaces `subprocess.run` for a command `[python, "-P", "-c", program, *arguments]` without output."""
        if self._process is None:
            start = [sys.executable, "-P", "-c", SERVER]
            self._process = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        program, *arguments = command[3:]
        with tempfile.NamedTemporaryFile("r") as errors:
            job = [program, arguments, dict(env), os.getcwd(), errors.name]
            print(json.dumps(job), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(command, code, "", errors.read())

    def close(self):
        """End the process."""
        if self._process:
            self._process.communicate()
