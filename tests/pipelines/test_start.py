"""What a command sets before torch is imported, which looks for it only then."""

import os
import subprocess
import sys

RUN = """
import importlib.abc, os, sys
from pipelines.cli.main import ENVIRONMENT, main

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print({key: os.environ.get(key) for key in ENVIRONMENT} == dict(ENVIRONMENT))
            sys.exit()

sys.meta_path.insert(0, Watch())
main(sys.argv[1:])
"""


def test_torch_finds_its_settings_when_a_command_imports_it():
    clean = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE")}
    words = ["train", "ratings.csv", "-m", "vae", "-o", "model"]
    found = subprocess.run([sys.executable, "-c", RUN, *words], env=clean, capture_output=True, text=True, check=False)
    assert found.stdout == "True\n", found.stderr
