#!/usr/bin/env bash
# Fetches this job's OIDC token and tells boto3 where it lies: no key of the bucket is stored anywhere.
# A token lives for five minutes and boto3 reads it anew each hour, so it is renewed as long as the job runs.
# usage: bucket-token.sh ROLE_ARN
set -euo pipefail
role="${1:?the ARN of the role}"
umask 077
token="$RUNNER_TEMP/bucket-token"
fetch() {
  curl -fsS -H "Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" \
    "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=sts.amazonaws.com" \
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["value"], end="")' >"$token.part" \
    && mv "$token.part" "$token"
}
fetch
# It ends with the job, whose temporary folder goes.
(while sleep "${RENEW:-240}" && [ -e "$token" ]; do fetch || true; done) >/dev/null 2>&1 &
disown
{
  echo "AWS_WEB_IDENTITY_TOKEN_FILE=$token"
  echo "AWS_ROLE_ARN=$role"
} >>"$GITHUB_ENV"
