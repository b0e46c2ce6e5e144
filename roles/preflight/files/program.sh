# What a release's kube-apiserver says of itself. Changes nothing.
#   usage: program.sh ARCHIVE FLAG…
#
# Prints the processor that it is for (`x86_64`, `aarch64`, `script`, or the number in its head). Where this machine can run it, what
# `--version` says follows, `refused NAME` for each flag that it does not take, and all of `--help`. Flags that are deprecated are taken
# and not shown by `--help`, so those that are missing there are tried.

set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -C "$folder" -xzf "$1" --wildcards --strip-components=3 '*/server/bin/kube-apiserver'
program=$folder/kube-apiserver
case $(od -An -tx1 -N2 "$program" | tr -d ' ') in
  2321) machine=script ;;
  *) machine=$(od -An -tu2 -j18 -N2 "$program" | tr -d ' ') ;;
esac
case $machine in 62) machine=x86_64 ;; 183) machine=aarch64 ;; esac
echo "$machine"
if [ "$machine" = script ] || [ "$machine" = "$(uname -m)" ]; then
  shift
  "$program" --version
  "$program" --help > "$folder/help"
  for flag in "$@"; do
    name=${flag%%=*}
    if [ "$name" = --feature-gates ] || ! grep -q -e " $name " "$folder/help"; then
      "$program" "$flag" --version > /dev/null 2>&1 || echo "refused $name"
    fi
  done
  cat "$folder/help"
fi
