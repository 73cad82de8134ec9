#!/bin/sh
# From a training run to the finished pack: export, quantise, test on the held-out scans, measure, write manifest and card.
# Usage, from this folder, with the train extra installed:
#   PYTHONPATH=../../.. ./finish.sh WORK DATA RUN...
# WORK has prepared/, abdomen/ and chest/ in it, DATA is the shared scans, RUN are train.py's folders in their order; the
# last one is packed. PACK is another folder than the shipped pack's, PYTHON another interpreter.
set -eu
if [ $# -lt 3 ]; then
  echo "usage: ./finish.sh WORK DATA RUN..." >&2
  exit 2
fi
work=$1 data=$2
shift 2
for needed in "$work/prepared" "$work/abdomen" "$work/chest" "$data/volumes-2mm"; do
  [ -d "$needed" ] || { echo "finish.sh: there is no folder $needed" >&2; exit 2; }
done
pack=${PACK:-../../trunk}
python=${PYTHON:-../../../.venv/bin/python}
count=$#
for run in "$@"; do # the last one stays in $run; each is kept with its option before it
  [ -f "$run/last.pt" ] || { echo "finish.sh: $run holds no last.pt of train.py" >&2; exit 2; }
  set -- "$@" --run "$run"
done
shift "$count"
"$python" export.py --run "$run" --pack "$pack"
"$python" package.py --pack "$pack" "$@"
"$python" quantise.py --pack "$pack" --data "$data"
"$python" evaluate.py --pack "$pack" --data "$data" --labels "$work/prepared" --answers "$work/abdomen" \
  --answers "$work/chest" --out "$run/evaluation.json"
set -- --pack "$pack" "$@" --evaluation "$run/evaluation.json"
# the benchmark measures the pack that ships, and no other's figures belong into a manifest
if [ "$(cd "$pack" && pwd -P)" = "$(cd ../../trunk && pwd -P)" ]; then
  "$python" ../../../tests/benchmarks/bench_pack.py --json "$run/speed.json"
  set -- "$@" --speed "$run/speed.json"
fi
"$python" package.py "$@"
