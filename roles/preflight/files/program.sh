# What a release's kube-apiserver says of itself. Changes nothing.
#   usage: program.sh ARCHIVE
#
# Prints the processor that it is for (`x86_64`, `aarch64`, `script`, or the number in its head), what `--version` says, then all of
# `--help`; the last two only where this machine can run it.

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
  "$program" --version
  "$program" --help
fi
