#!/bin/sh
# Installs Chromium, which only the tests in this folder need, from Debian's packages. Safe to run twice.
set -eu

fail() {
  echo "setup: $1" >&2
  exit 1
}

if command -v chromium >/dev/null 2>&1; then
  echo "setup: $(chromium --version) is there"
  exit 0
fi
command -v apt-get >/dev/null 2>&1 || fail "chromium is not there and neither is apt-get; put Chromium on the PATH as chromium"
root=""
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null || fail "chromium is not there; to change that: sudo apt-get install chromium"
  root="sudo"
fi
# A font comes along: the report's texts must have a width.
install() {
  $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
}
install 2>/dev/null || { $root apt-get update -qq && install; } || fail "apt-get could not install chromium"
echo "setup: installed $(chromium --version)"
