# What a host of the control plane looks like from inside, one fact a line, fields separated by tabs. Changes nothing.
# Its argument is the folder of the certificates.
#
#   unit     NAME STATE                    of systemd
#   process  NAME PID SECONDS VERSION      for how long it has been running, what its executable calls itself
#   flag     NAME FLAG VALUE               of the running process
#   file     NAME FLAG PATH SHA256         what such a flag names
#   cert     PATH SECONDS SUBJECT          seconds left
#   address  ADDRESS                       that an interface has
#   port     PORT                          that something listens on

tab=$(printf '\t')
now=$(date +%s)

certificate() { # PATH, PEM on standard input
  text=$(openssl x509 -noout -enddate -subject -nameopt RFC2253 2>/dev/null) || return 0
  end=$(printf '%s\n' "$text" | sed -n 's/^notAfter=//p')
  subject=$(printf '%s\n' "$text" | sed -n 's/^subject=//p')
  printf 'cert\t%s\t%s\t%s\n' "$1" "$(($(date -u -d "$end" +%s) - now))" "$subject"
}

file() { # NAME FLAG PATH
  [ -f "$3" ] || return 0
  printf 'file\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$(sha256sum < "$3" | cut -d ' ' -f 1)"
  if grep -q 'BEGIN CERTIFICATE' "$3"; then
    certificate "$3" < "$3"
  fi
  case $2 in *kubeconfig) kubeconfig "$3" ;; esac
}

kubeconfig() { # PATH
  sed -n 's/^ *client-certificate-data: *//p' "$1" | base64 -d 2>/dev/null | certificate "$1"
  named=$(sed -n 's/^ *client-certificate: *//p' "$1" | tr -d '"')
  [ -z "$named" ] || certificate "$named" < "$named"
}

for name in kube-apiserver kube-controller-manager kube-scheduler etcd nginx keepalived; do
  state=$(systemctl show -p ActiveState --value "$name" 2>/dev/null)
  loaded=$(systemctl show -p LoadState --value "$name" 2>/dev/null)
  [ "$loaded" = loaded ] || continue
  printf 'unit\t%s\t%s\n' "$name" "$state"
  pid=$(systemctl show -p MainPID --value "$name")
  [ "${pid:-0}" -gt 0 ] || continue
  case $name in
    kube-*) version=$("/proc/$pid/exe" --version 2>/dev/null | sed 's/^Kubernetes //') ;;
    etcd) version=$("/proc/$pid/exe" --version 2>/dev/null | sed -n 's/^etcd Version: //p') ;;
    *) version= ;;
  esac
  printf 'process\t%s\t%s\t%s\t%s\n' "$name" "$pid" "$(ps -o etimes= -p "$pid" | tr -d ' ')" "$version"
  # `--flag value` and `--flag=value` alike, a word a line.
  tr '\0' '\n' < "/proc/$pid/cmdline" | sed -e 's/^\(--[^=]*\)=/\1\n/' | {
    flag=
    while IFS= read -r word; do
      case $word in
        --*) flag=${word#--} ;;
        *)
          [ -z "$flag" ] || printf 'flag\t%s\t%s\t%s\n' "$name" "$flag" "$word"
          case $flag in
            *dir | *log*) ;;
            ?*) case $word in /*) file "$name" "$flag" "$word" ;; esac ;;
          esac
          flag=
          ;;
      esac
    done
  }
done

if [ -f /etc/etcd/etcd.yaml ]; then
  sed -n 's/^ *\(cert-file\|trusted-ca-file\): *//p' /etc/etcd/etcd.yaml | sort -u | while IFS= read -r path; do file etcd config "$path"; done
fi
for path in "$1"/*.pem; do
  ! [ -f "$path" ] || certificate "$path" < "$path"
done
for path in /root/.kube/config /etc/kubernetes/*.kubeconfig /etc/kubernetes/server/conf/*.kubeconfig; do
  [ -f "$path" ] && kubeconfig "$path"
done | sort -u

ip -o address show | sed -n 's/^[0-9]*: *[^ ]* *inet6\{0,1\} \([^/ ]*\).*/address\t\1/p'
ss -Hltn | sed -n 's/^LISTEN *[0-9]* *[0-9]* *[^ ]*:\([0-9]*\) .*/port\t\1/p' | sort -u
