#!/usr/bin/env bash
# Trusted publishing: this job's OIDC token becomes a token of PyPI that lives for minutes.
# usage: push-pypi.sh FOLDER
set -euo pipefail
folder="${1:?the folder of wheels}"
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]], end="")' "$1"; }
token="$(curl -fsS -H "Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" \
  "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=pypi" | field value)"
minted="$(printf '{"token": "%s"}' "$token" | curl -fsS --data-binary @- https://pypi.org/_/oidc/mint-token | field token)"
python3 -m venv "$RUNNER_TEMP/twine"
"$RUNNER_TEMP/twine/bin/pip" install -q twine==6.2.0
TWINE_USERNAME=__token__ TWINE_PASSWORD="$minted" "$RUNNER_TEMP/twine/bin/twine" upload "$folder"/*.whl
