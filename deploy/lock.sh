#!/usr/bin/env bash
# What `make lock` runs: writes constraints.txt anew, with the newest versions that pyproject.toml allows.
set -euo pipefail
cd "$(dirname "$0")/.."

# torch is raised here, by hand: it is the largest download by far, and its CUDA and CPU builds share this number.
torch=2.13.0

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
"${PYTHON:-python3}" -m venv "$environment"
pip() { "$environment/bin/python" -m pip --disable-pip-version-check "$@"; }

pip install --quiet --upgrade pip
pip install --quiet "torch==$torch"
pip install --quiet "torch==$torch" --group dev --editable '.[server,postgres,dataframe,plot,demo,optuna,pytorch,lightning,keras,transformers,ray]'
pip freeze --all --exclude-editable >"$environment/frozen"
{
    echo "# The versions that asktell is developed and tested with; what is not needed is not installed."
    echo "# Made by \`make lock\` from pyproject.toml; do not edit."
    # A build such as 2.13.0+cpu comes from some indexes only; the version is the same on all.
    sed -E 's/\+[A-Za-z0-9.]+$//' "$environment/frozen" | LC_ALL=C sort --ignore-case
} >"$environment/constraints"
# In one step, so that an interrupted run leaves the old file.
cp "$environment/constraints" constraints.txt.new
mv constraints.txt.new constraints.txt
echo "constraints.txt: $(grep -c '==' constraints.txt) packages"
