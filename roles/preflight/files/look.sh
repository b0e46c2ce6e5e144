# What a preflight wants to know of a host, one fact a line, fields separated by tabs. Changes nothing.
#   usage: look.sh RELEASE FOLDER…    RELEASE is where the release's kube-apiserver is to lie; of FOLDERs the free space is told
#
#   time        SECONDS
#   port        PORT PROGRAM        that is listened on
#   blind       PROGRAM             that is missing here, so that something was not looked at
#   running     VERSION             of kube-apiserver
#   release     PATH                RELEASE, when it is there already
#   unit        NAME STATE          of etcd and keepalived, when there is such a unit
#   free        FOLDER MIB          for the folder, or for the nearest one above that exists
#
# Of a folder that stands for a host nothing is told: whatever runs, runs elsewhere.

[ -z "$KPLAY_ROOT" ] || exit 0
release=$1
shift
printf 'time\t%s\n' "$(date +%s)"
if command -v ss > /dev/null; then
  ss -Hltnp | while read -r _ _ _ address _ users; do
    program=${users#*\"}
    printf 'port\t%s\t%s\n' "${address##*:}" "${program%%\"*}"
  done | sort -u
else
  printf 'blind\tss\n'
fi
pid=$(systemctl show -p MainPID --value kube-apiserver 2> /dev/null)
[ "${pid:-0}" -gt 0 ] && printf 'running\t%s\n' "$("/proc/$pid/exe" --version 2> /dev/null | sed 's/^Kubernetes //')"
[ -n "$release" ] && [ -x "$release" ] && printf 'release\t%s\n' "$release"
for unit in etcd keepalived; do
  [ "$(systemctl show -p LoadState --value "$unit" 2> /dev/null)" = loaded ] || continue
  printf 'unit\t%s\t%s\n' "$unit" "$(systemctl show -p ActiveState --value "$unit")"
done
for folder in "$@"; do
  there=$folder
  until [ -e "$there" ]; do there=${there%/*}; there=${there:-/}; done
  printf 'free\t%s\t%s\n' "$folder" "$(df -Pm "$there" | awk 'NR == 2 { print $4 }')"
done
