#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes real layers for tests and benchmarks, from Debian and npm packages:
#   base.tar   a minimal Debian root            (~200 MB, ~7,000 entries)
#   big.tar    the same with python, git, gcc, a JRE (~800 MB, ~18,000 entries)
#   small.tar  a JavaScript project's node_modules (~450 MB, ~75,000 small files)
# each also as .tar.gz (level 6) and .tar.zst (level 3). Usage: make-corpus.sh DIR [base|big|small|all]
# Needs root, debootstrap, pigz, zstd, and npm for `small`. What is already there is kept.
set -euo pipefail
dir=${1:?usage: make-corpus.sh DIR [base|big|small|all]}
what=${2:-all}
mkdir -p "$dir"; dir=$(cd "$dir" && pwd)
pack() { # NAME TREE
  [ -f "$dir/$1.tar" ] || { tar -C "$2" --sort=name --numeric-owner --xattrs -cf "$dir/$1.tar.tmp" . && mv "$dir/$1.tar.tmp" "$dir/$1.tar"; }
  [ -f "$dir/$1.tar.gz" ] || pigz -6 -k -p 2 "$dir/$1.tar"
  [ -f "$dir/$1.tar.zst" ] || zstd -q -3 "$dir/$1.tar"
}
base() { [ -d "$dir/base" ] || { rm -rf "$dir/base.tmp"; debootstrap --variant=minbase bookworm "$dir/base.tmp" >"$dir/base.log" && mv "$dir/base.tmp" "$dir/base"; }; pack base "$dir/base"; }
big() {
  base
  [ -d "$dir/big" ] || {
    rm -rf "$dir/big.tmp"
    cp -a "$dir/base" "$dir/big.tmp"
    cp /etc/resolv.conf "$dir/big.tmp/etc/" 2>/dev/null || true
    cp -r /etc/apt/apt.conf.d/. "$dir/big.tmp/etc/apt/apt.conf.d/" 2>/dev/null || true
    # openjdk's installation script reads /proc; the mount ends with its namespace.
    unshare -m sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" sh -c "$2"' sh "$dir/big.tmp" 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 git perl gcc libc6-dev python3-numpy openjdk-17-jre-headless' >"$dir/big.log" 2>&1
    mv "$dir/big.tmp" "$dir/big"
  }
  pack big "$dir/big"
}
small() {
  [ -d "$dir/small" ] || {
    rm -rf "$dir/small.tmp"; mkdir -p "$dir/small.tmp"
    (cd "$dir/small.tmp" && npm init -y >/dev/null && npm install --no-audit --no-fund --ignore-scripts --silent webpack webpack-cli typescript eslint jest @babel/core @babel/preset-env react react-dom next@14 vite@7 @mui/material @mui/icons-material lodash date-fns rxjs)
    mv "$dir/small.tmp" "$dir/small"
  }
  pack small "$dir/small"
}
case $what in base) base ;; big) big ;; small) small ;; all) base; big; small ;; *) echo "unknown: $what" >&2; exit 2 ;; esac
ls -l "$dir"/*.tar*
