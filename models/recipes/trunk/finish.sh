#!/bin/sh
# From a training run to the finished pack: export, quantise, test on the held-out scans, measure, write manifest and card.
# Usage, from this folder, with the train extra installed:
#   PYTHONPATH=../../.. ./finish.sh FIRST SECOND WORK DATA
# FIRST and SECOND are train.py's folders, WORK has prepared/ and phantoms/ in it, DATA the shared scans.
set -eu
first=$1 run=$2 work=$3 data=$4
pack=../../trunk
python=${PYTHON:-../../../.venv/bin/python}
"$python" export.py --run "$run" --pack "$pack"
"$python" package.py --pack "$pack" --run "$first" --run "$run"
"$python" quantise.py --pack "$pack" --data "$data"
"$python" evaluate.py --pack "$pack" --data "$data" --labels "$work/prepared" --out "$run/evaluation.json"
"$python" ../../../tests/benchmarks/bench_pack.py --json "$run/speed.json"
"$python" package.py --pack "$pack" --run "$first" --run "$run" --evaluation "$run/evaluation.json" --speed "$run/speed.json"
