#!/usr/bin/env bash
# Everything that only a GPU can confirm, unattended and within ten minutes:
#
#     tests/gpu_programme.sh [--device gpu|cpu] [--mnist FOLDER] [--seconds N] [--parts NAME...]
#
# Tests on the device, laws, agreement of whole runs with the CPU, MNIST to 98 %, benches beside
# PyTorch, peak memory. Results go to $OUT (or ./gpu-results): results.json, which is complete as
# far as the programme got, and log.txt. Exit code 0 if every part that could run went well.
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
export OUT="${OUT:-$PWD/gpu-results}"
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
python3 tests/gpu_programme.py "$@" 2>&1 | tee "$OUT/log.txt"
exit "${PIPESTATUS[0]}"
