#!/usr/bin/env bash
# Everything that only a GPU can confirm, unattended and within ten minutes:
#
#     tests/gpu_programme.sh [--device gpu|cpu] [--mnist FOLDER] [PART...]
#
# The tests on the device, the laws, MNIST to 98 %, benches beside PyTorch. What each part printed
# goes to $OUT (or ./gpu-results), with summary.txt, which says what went well as far as the
# programme got. Exit code 0 if every part did.
#
# On a machine without a package index, put the wheels that it lacks into a folder .whl in the
# repository (array-api-strict, say), and MNIST's four files into .mnist:
#
#     mkdir -p .whl .mnist && cp /path/to/mnist/*.gz .mnist
#     python3 -m pip download --no-deps -d .whl array-api-strict
#
# Nothing is installed into the machine's own Python.
set -uo pipefail
cd "$(dirname "$0")/.."
device=gpu mnist=.mnist parts=
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --mnist) mnist=$2; shift 2 ;;
        *) parts="$parts $1"; shift ;;
    esac
done
OUT="${OUT:-$PWD/gpu-results}"
mkdir -p "$OUT"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G ".whl/*.whl" > /dev/null; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --target "$site" .whl/*.whl || exit 1
fi
ln -s "$PWD/cli" "$site/nembp_cli"  # as an installation has it
export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export CUPY_CACHE_DIR="${CUPY_CACHE_DIR:-$site/cupy}"

failed=0
: > "$OUT/summary.txt"
part() {  # name, most seconds, command...
    local name=$1 limit=$2 left=$((570 - SECONDS)) start=$SECONDS code
    shift 2
    if [ -n "$parts" ] && [[ " $parts " != *" $name "* ]]; then return; fi
    if [ $((left - 5)) -lt "$limit" ]; then limit=$((left > 15 ? left - 5 : 10)); fi
    printf '\n== %s (at most %s s)\n' "$name" "$limit"
    timeout "$limit" "$@" > "$OUT/$name.txt" 2>&1
    code=$?
    tail -n 25 "$OUT/$name.txt"
    printf '%-14s exit %-4s %s s\n' "$name" "$code" $((SECONDS - start)) >> "$OUT/summary.txt"
    [ "$code" -eq 0 ] || failed=1
}
nembp="python3 -m nembp"

if [ "$device" = gpu ]; then
    batches=128,1024,8192 cases=20 quick=
    part driver 20 nvidia-smi
else  # to try this script itself
    batches=128 cases=2 quick="--quick --repeats 2"
fi
dense="--suite dense --networks 784-512-512-10 --threads 1 --device $device"
images=32x32x3/conv32x4s2,16x16x64/conv64x3,32x32x3/conv32x4s2/conv64x4s2/conv128x4s2/256/10
part info 60 $nembp info --json
part dense 200 $nembp bench $dense --batches $batches --out "$OUT/dense.json" $quick
if compgen -G "$mnist/train-images*" > /dev/null; then
    part mnist 120 $nembp train --dataset mnist --data-dir "$mnist" --device $device --epochs 10 \
        --out "$OUT/mnist-$$"
    part mnist-98 20 python3 -c "import json, sys
score = json.load(open(sys.argv[1]))['forward/accuracy']
sys.exit(score < 0.98 and f'accuracy {score}')" "$OUT/mnist-$$/summary.json"
fi
part tests 200 python3 -m pytest -q -p no:cacheprovider --durations=5 -W default \
    --device $device tests/test_gpu_{kernels,backend,training,laws,cli,bench}.py
part adversarial 60 $nembp bench --suite adversarial --threads 1 --device $device \
    --out "$OUT/adversarial.json" $quick
part laws 90 $nembp verify --device $device --cases $cases -q
part convolution 80 $nembp bench --suite convolution --networks $images --batches 128 \
    --threads 1 --device $device --out "$OUT/convolution.json" $quick
part tf32 60 $nembp bench $dense --precision tf32 --quick --repeats 5 --batches ${batches##*,} \
    --out "$OUT/tf32.json"
cat "$OUT/summary.txt"
exit $failed
