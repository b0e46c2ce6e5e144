# What programs of a release say of themselves and of flags. Changes nothing.
#   usage: program.sh archive FILE CHECKSUM PROGRAMS    those in a release's archive, which has to have CHECKSUM if that is not empty
#          program.sh folder FOLDER '' PROGRAMS         those that lie there
#   PROGRAMS: `program:NAME FLAG…` for each, kube-apiserver first. Of the others those that are not there are left out.
#
# One fact a line, fields separated by tabs; `--help` comes last, and only when a flag was refused:
#
#   checksum    CHECKSUM            that the archive has, when it has to have one
#   program     NAME                which one what follows is about
#   machine     PROCESSOR           that it is for: `x86_64`, `aarch64`, `script`, or the number in its head
#   version     TEXT                where this machine can run it
#   refused     FLAG REASON
#   help        (the rest)
#
# Flags are tried, together with `--version`, since `--help` does not show those that are deprecated and still taken: first all at once,
# then each by itself.

set -e
kind=$1 place=$2 checksum=$3
shift 3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
names=
for word in "$@"; do
  case $word in
    program:*) name=${word#program:} names="$names $name"; : > "$folder/$name.flags" ;;
    *) printf '%s\n' "$word" >> "$folder/$name.flags" ;;
  esac
done
if [ "$kind" = archive ]; then
  if [ -n "$checksum" ]; then
    sum=$("${checksum%%:*}sum" < "$place")
    printf 'checksum\t%s:%s\n' "${checksum%%:*}" "${sum%% *}"
  fi
  set --
  for name in $names; do set -- "$@" "*/server/bin/$name"; done
  if ! tar -C "$folder" -xf "$place" --wildcards --occurrence=1 --strip-components=3 "$@" 2> "$folder/said" && ! [ -f "$folder/kube-apiserver" ]; then
    cat "$folder/said" >&2
    exit 1
  fi
  place=$folder
fi

try() {
  "$program" "$@" --version > "$folder/said" 2>&1 && return
  reason=$(sed -n 's/^[Ee]rror: //p' "$folder/said" | head -n 1)
  printf 'refused\t%s\t%s\n' "$1" "${reason:-$(head -n 1 "$folder/said")}"
}

for name in $names; do
  program=$place/$name
  [ -f "$program" ] || [ "$name" = kube-apiserver ] || continue
  printf 'program\t%s\n' "$name"
  set --
  while IFS= read -r flag; do set -- "$@" "$flag"; done < "$folder/$name.flags"
  case $(od -An -tx1 -N2 "$program" | tr -d ' ') in
    2321) machine=script ;;
    *) machine=$(od -An -tu2 -j18 -N2 "$program" | tr -d ' ') ;;
  esac
  case $machine in 62) machine=x86_64 ;; 183) machine=aarch64 ;; esac
  printf 'machine\t%s\n' "$machine"
  [ "$machine" = script ] || [ "$machine" = "$(uname -m)" ] || continue
  printf 'version\t%s\n' "$("$program" --version)"
  if ! "$program" "$@" --version > /dev/null 2>&1; then
    for flag in "$@"; do
      case $flag in
        --feature-gates=*) for gate in $(echo "${flag#*=}" | tr , ' '); do try "--feature-gates=$gate"; done ;;
        *) try "$flag" ;;
      esac
    done
    echo help
    "$program" --help
  fi
done
