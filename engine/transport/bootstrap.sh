# What a host runs to become an agent that does not run where it usually lies: POSIX sh, busybox included.
#
# The lines are joined by blanks and travel as one word in single quotes through the login shell, which may be a csh or a
# fish: so there is no single quote, no `!` and no doubled backslash in them, and a semicolon wherever a line ends a command.
# {MARKER}, {AGENTS} and {FOLDER} are filled in; none of them holds a character that a shell would look at.
#
# The probe for execution begins with the two bytes that name its shell: a busybox without /proc runs no script that does not.
#
# What it makes is for its user alone; the agent, and with it the commands of tasks, gets the umask of the login.
#
# A program takes a host a millisecond, and a subshell a third of one: who we are is asked of /proc first, and a folder that is not
# there is not entered.
#
# It speaks in lines that begin with byte 1, the word KPLAY and the kind of line. What a login shell, a banner or a forced
# command prints besides is skipped over by the controller.

m={MARKER};
set -f;
say() { printf "\001KPLAY-%s:%s %s\n" "$1" "$m" "$2"; };
fail() { say FAIL "$1"; exit 97; };

o=$(umask); umask 077;
n=$(printf "\n_"); n=${n%_};
u=; while read -r k x v l; do case $k in Uid:) u=$v; break;; esac; done 2>/dev/null < /proc/self/status;
if [ -z "$u" ]; then u=$(id -u) || fail "id -u does not work there"; fi;
a=$(uname -m) || fail "uname -m does not work there";
h=;
case $a in amd64) a=x86_64;; arm64) a=aarch64;; esac;
for x in {AGENTS}; do
  IFS=:; set -- $x; IFS=" ";
  if [ "$1" = "$a" ]; then h=$2; s=$3; fi;
done;
if [ -z "$h" ]; then say MACHINE "$a"; exit 98; fi;

# safe PATH: whether every component belongs to us or to root and can be written by nobody else (a sticky /tmp excepted).
# One `ls` looks at them all. Sets `k` when PATH is an agent: ours, executable by us alone, as large as it has to be.
safe() {
  p=$1; k=; set -- /;
  while [ -n "$p" ]; do set -- "$@" "$p"; p=${p%/*}; done;
  IFS=$n;
  for l in $(LC_ALL=C ls -ldn "$@" 2>/dev/null); do
    IFS=" "; set -- $l;
    case $3 in 0|$u) ;; *) return 1;; esac;
    case $1 in
      -rwx------*) if [ "$3" = "$u" ] && [ "$5" = "$s" ]; then k=1; fi;;
      -*) ;;
      d????????[tT]*|d????-??-?*) ;;
      *) return 1;;
    esac;
  done;
};

# real FOLDER: sets `r` to its path without links, if it is a folder and no link itself.
real() { if [ -L "$1" ]; then return 1; fi; [ -d "$1" ] && r=$(cd -P "$1" 2>/dev/null && pwd -P); };

# The agent is there. One that is not to be trusted goes: it would be tried again, in vain, ahead of this script each time.
for d in {FOLDER} "${HOME:-/nonexistent}/.cache/kplay" /var/tmp/kplay-$u /tmp/kplay-$u; do
  if real "$d" && safe "$r/agent-$h" && [ -n "$k" ]; then umask "$o"; exec "$r/agent-$h" serve $m; fi;
  if [ -f "$d/agent-$h" ]; then rm -f "$d/agent-$h"; fi;
done;

# It is not: take it into the first folder that is safe and allows execution.
IFS=" ";
has() { command -v "$1" >/dev/null 2>&1; };
z=; for x in zstd gzip sha256sum; do if [ -z "$z" ] && has $x; then z=$x; fi; done;
case $z in sha256sum) z=plain;; "") fail "none of zstd, gzip and sha256sum is there";; esac;
damaged() { fail "the agent arrived damaged in $d; is the disk full?"; };
not() { echo "kplay: $1" >&2; };
for d in {FOLDER} "${HOME:-/nonexistent}/.cache/kplay" /var/tmp/kplay-$u /tmp/kplay-$u; do
  if [ -e "$d" ]; then :; else mkdir -p -m 700 "$d" 2>/dev/null; fi;
  real "$d" || { not "cannot use $d: no folder, or a link"; continue; };
  safe "$r" || { not "cannot use $d: it, or a folder above it, belongs to or can be written by others"; continue; };
  t=$r/.new-$m;
  { printf "\043\041/bin/sh\n" > "$t"; } 2>/dev/null && chmod 700 "$t" || { not "cannot use $d: it cannot be written to"; continue; };
  "$t" 2>/dev/null || { rm -f "$t"; not "cannot use $d: it does not allow execution"; continue; };
  clean() { rm -f "$t"; };
  trap clean 0; trap "exit 1" 1 2 13 15;
  set +f; set -- "$r"/agent-*; set -f;
  if [ -e "$1" ]; then find "$r" -name "agent-*" -mtime +60 -exec rm -f {} + 2>/dev/null; fi;
  say NEED "$z $h";
  read -r c || exit 1;
  if [ $z = plain ]; then head -c "$c" > "$t"; x=$(sha256sum < "$t"); [ "${x%% *}" = "$h" ] || damaged;
  else head -c "$c" | $z -dc > "$t" || damaged; fi;
  mv -f "$t" "$r/agent-$h" || fail "cannot rename the agent in $d";
  trap - 0 1 2 13 15;
  umask "$o"; exec "$r/agent-$h" serve $m;
done;
fail "no folder there can hold the agent"
