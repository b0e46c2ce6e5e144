# What a preflight wants to know of a host, one fact a line, fields separated by tabs. Changes nothing.
#   usage: look.sh FOLDER…         folders whose free space is told
#
#   time     SECONDS
#   port     PORT PROGRAM          that is listened on
#   running  VERSION               of kube-apiserver
#   etcd     STATE                 of the unit, when there is one
#   free     FOLDER MIB            for the folder, or for the nearest one above that exists

printf 'time\t%s\n' "$(date +%s)"
ss -Hltnp | while read -r _ _ _ address _ users; do
  program=${users#*\"}
  printf 'port\t%s\t%s\n' "${address##*:}" "${program%%\"*}"
done | sort -u
pid=$(systemctl show -p MainPID --value kube-apiserver 2>/dev/null)
[ "${pid:-0}" -gt 0 ] && printf 'running\t%s\n' "$("/proc/$pid/exe" --version 2>/dev/null | sed 's/^Kubernetes //')"
[ "$(systemctl show -p LoadState --value etcd 2>/dev/null)" = loaded ] && printf 'etcd\t%s\n' "$(systemctl show -p ActiveState --value etcd)"
for folder in "$@"; do
  there=$folder
  until [ -e "$there" ]; do there=${there%/*}; there=${there:-/}; done
  printf 'free\t%s\t%s\n' "$folder" "$(df -Pm "$there" | awk 'NR == 2 { print $4 }')"
done
