#!/usr/bin/env bash
# Makes a folder the only commit of the branch gh-pages.
# usage: TOKEN=... push-pages.sh FOLDER REPOSITORY_URL
set -euo pipefail
folder="${1:?the folder}" repository="${2:?the URL of the repository}"
cd "$folder"
touch .nojekyll
git init -q -b gh-pages .
git add -A
git -c user.name=nightly -c user.email=nightly@localhost commit -q -m "The catalog"
# In the environment: arguments are for all to see.
GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=http.extraHeader \
  GIT_CONFIG_VALUE_0="Authorization: Basic $(printf 'x-access-token:%s' "$TOKEN" | base64 -w0)" \
  git push -q --force "$repository" gh-pages
rm -rf .git
