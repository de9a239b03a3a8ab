#!/usr/bin/env bash
# Installs torch 2.13.0 into the environment of the given interpreter.
# Linux wheels of torch on PyPI are CUDA builds of several GB; a CPU user wants the +cpu build, which lives on
# another index (TORCH_INDEX) or wherever pip is configured to look. GPU=1 takes PyPI's build and its dependencies.
set -euo pipefail
python=$1
version=2.13.0
if [ -n "${GPU:-}" ]; then
    "$python" -m pip install -q "torch==$version"
elif ! "$python" -m pip install -q --no-deps "torch==$version+cpu" 2>/dev/null; then
    "$python" -m pip install -q --no-deps --index-url "$TORCH_INDEX" "torch==$version+cpu"
fi
