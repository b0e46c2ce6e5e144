#!/bin/sh
# Written by kplay (role keepalived). Fails unless something on this host listens on a TCP port.
#
#   vrrp_script chk_nginx {
#       script "/etc/keepalived/check_port.sh 7443"
#       interval 2
#   }

port=$1
case $port in
    '' | *[!0-9]*)
        echo "usage: $0 PORT" >&2
        exit 2
        ;;
esac

# `ss` compares numbers, so that 7443 is not found in 17443, nor in an address.
if [ -z "$(ss -Hlnt "sport = :$port")" ]; then
    echo "nothing listens on port $port" >&2
    exit 1
fi
