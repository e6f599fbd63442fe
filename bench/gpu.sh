#!/bin/sh
# One call, under nine minutes, on a machine with a GPU: airrun at several sizes of its memory, and what else runs such models
# beside it. Makes its model, writes a CSV row by row and prints it last. `bench/gpu.sh --help` lists what can be chosen.
#
# What is missing is skipped with a sentence. PYTHON names a Python 3.9 or later; `gguf` and `numpy` (PyPI) make the model.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python3}" "$here/gpu.py" "$@"
