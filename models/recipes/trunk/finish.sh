#!/bin/sh
# From a training run to the finished pack: export, quantise, test on the held-out scans, measure, write manifest and card.
# Usage, from this folder, with the train extra installed:
#   PYTHONPATH=../../.. ./finish.sh RUN WORK DATA
# RUN is train.py's folder, WORK the folder with prepared/ and phantoms/, DATA the shared scans.
set -eu
run=$1 work=$2 data=$3
pack=../../trunk
python=${PYTHON:-../../../.venv/bin/python}
"$python" export.py --run "$run" --data "$work/prepared" --data "$work/phantoms" --pack "$pack"
"$python" package.py --pack "$pack" --run "$run"
"$python" evaluate.py --pack "$pack" --data "$data" --labels "$work/prepared" --out "$run/evaluation.json"
"$python" ../../../tests/benchmarks/bench_pack.py --json "$run/speed.json"
"$python" package.py --pack "$pack" --run "$run" --evaluation "$run/evaluation.json" --speed "$run/speed.json"
