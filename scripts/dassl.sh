#!/usr/bin/env bash
# bash scripts/dassl.sh COMMAND ...    `dassl COMMAND ...` with this checkout's environment, from any folder
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

python=python3
if [[ -z "${VIRTUAL_ENV:-}" && "${CONDA_DEFAULT_ENV:-base}" == base && -x "$checkout/.venv/bin/python" ]]; then
    python="$checkout/.venv/bin/python"
fi
if ! "$python" -c 'import importlib.util as util; assert all(map(util.find_spec, ("torch", "yacs", "tqdm", "tabulate")))' 2>/dev/null; then
    echo "error: $python does not have the packages of this project. Run 'make demo' once, or 'pip install -e \"$checkout\"' in your environment" >&2
    exit 2
fi
PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m promptlearn.cli "$@"
