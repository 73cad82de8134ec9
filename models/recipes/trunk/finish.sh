#!/bin/sh
# From a training run to the finished pack: export, quantise, test on the held-out scans, measure, write manifest and card.
# Usage, from this folder, with the train extra installed:
#   PYTHONPATH=../../.. ./finish.sh WORK DATA RUN...
# WORK has prepared/, abdomen/ and chest/ in it, DATA is the shared scans, RUN are train.py's folders in their order; the
# last one is packed.
set -eu
work=$1 data=$2
shift 2
runs=''
for run in "$@"; do
  runs="$runs --run $run"
done
pack=${PACK:-../../trunk}
python=${PYTHON:-../../../.venv/bin/python}
"$python" export.py --run "$run" --pack "$pack"
"$python" package.py --pack "$pack" $runs
"$python" quantise.py --pack "$pack" --data "$data"
"$python" evaluate.py --pack "$pack" --data "$data" --labels "$work/prepared" --answers "$work/abdomen" \
  --answers "$work/chest" --out "$run/evaluation.json"
"$python" ../../../tests/benchmarks/bench_pack.py --json "$run/speed.json"
"$python" package.py --pack "$pack" $runs --evaluation "$run/evaluation.json" --speed "$run/speed.json"
