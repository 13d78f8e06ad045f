#!/usr/bin/env bash
# Fetches this job's OIDC token and tells boto3 where it lies: no key of the bucket is stored anywhere.
# usage: bucket-token.sh ROLE_ARN
set -euo pipefail
role="${1:?the ARN of the role}"
umask 077
token="$RUNNER_TEMP/bucket-token"
curl -fsS -H "Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" \
  "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=sts.amazonaws.com" \
  | python3 -c 'import json, sys; print(json.load(sys.stdin)["value"], end="")' >"$token"
{
  echo "AWS_WEB_IDENTITY_TOKEN_FILE=$token"
  echo "AWS_ROLE_ARN=$role"
} >>"$GITHUB_ENV"
