#!/bin/sh
# Installs what twobit needs and this machine lacks: Deno (from npm) and, where there is no Vulkan driver, Mesa's
# software one (from Debian's packages). Safe to run twice. Says exactly what to install where it may not do so itself.
set -eu

deno_version=2.9.6

fail() {
  echo "setup: $1" >&2
  exit 1
}

warn() {
  echo "setup: $1" >&2
}

install_deno() {
  if command -v deno >/dev/null 2>&1; then
    found=$(deno --version | head -n 1 | cut -d ' ' -f 2)
    echo "setup: deno $found is there"
    [ "$found" = "$deno_version" ] || echo "setup: note: twobit is tested with deno $deno_version" >&2
    return
  fi
  command -v npm >/dev/null 2>&1 ||
    fail "neither deno nor npm is there; install Deno $deno_version (https://deno.com) or Node.js with npm"
  npm install --global --no-fund --no-audit --loglevel=error "deno@$deno_version" ||
    fail "npm could not install deno@$deno_version; where only root may: npm config set prefix ~/.local, and run this again"
  bin=$(npm prefix --global)/bin
  command -v deno >/dev/null 2>&1 ||
    fail "deno $deno_version is in $bin, which is not in PATH: export PATH=\"$bin:\$PATH\", and run this again"
  deno --version | head -n 1
}

has_vulkan_driver() {
  for folder in /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/share/vulkan/icd.d \
    /usr/local/nvidia/share/vulkan/icd.d; do
    for file in "$folder"/*.json; do
      [ -e "$file" ] && return 0
    done
  done
  return 1
}

has_vulkan_loader() {
  { ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null; } | grep -q 'libvulkan\.so\.1'
}

install_vulkan() {
  [ "$(uname -s)" = Linux ] || return 0 # macOS and Windows bring Metal and Direct3D
  if has_vulkan_driver && has_vulkan_loader; then
    echo "setup: a Vulkan driver is there"
    return
  fi
  packages="libvulkan1"
  has_vulkan_driver || packages="mesa-vulkan-drivers $packages"
  if ! command -v apt-get >/dev/null 2>&1; then
    warn "no Vulkan driver: kernels and their tests won't run; install your distribution's $packages"
    return 0
  fi
  root=""
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
      root="sudo"
    else
      warn "no Vulkan driver: kernels and their tests won't run; to change that: sudo apt-get install $packages"
      return 0
    fi
  fi
  # shellcheck disable=SC2086 # the packages are words
  $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null 2>&1 ||
    { $root apt-get update -qq && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
      --no-install-recommends $packages >/dev/null; } ||
    fail "apt-get could not install $packages"
  echo "setup: installed $packages"
}

install_deno
install_vulkan
cd "$(dirname "$0")"
deno install --quiet --frozen || fail "deno could not fetch the npm packages that deno.lock names"
echo "setup: done; next: deno task doctor"
