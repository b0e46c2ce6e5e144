# Who else is on the link of a proxy that does not run keepalived yet: sends one packet to the shared address, so that its owner is
# asked for, and listens for announcements of virtual routers meanwhile. Changes nothing; joins their multicast group for that long.
#   usage: link.sh VIP ADDRESS SECONDS    VIP may be empty: nobody is asked for
#
#   router      ID SOURCE           an announcement, and who has sent it
#   owner       MAC                 of the machine that has the shared address
#   blind       PROGRAM             that is missing here, so that nothing was looked at

[ -z "$KPLAY_ROOT" ] || exit 0
vip=$1 address=$2 seconds=$3
for program in perl ip; do
  command -v "$program" > /dev/null || { printf 'blind\t%s\n' "$program"; exit 0; }
done
perl -MSocket -e '
  my ($vip, $address, $seconds) = @ARGV;
  my $now = eval { require Time::HiRes; \&Time::HiRes::time } || sub { time };
  if ($vip) {
    socket(my $asks, AF_INET, SOCK_DGRAM, 0);
    send($asks, "?", 0, pack_sockaddr_in(9, inet_aton($vip)));
  }
  # 112 is the number of VRRP; membership says from which interface the group 224.0.0.18 is listened to.
  socket(my $hears, AF_INET, SOCK_RAW, 112) or exit;
  setsockopt($hears, IPPROTO_IP, 35, inet_aton("224.0.0.18") . inet_aton($address)) or exit;
  my $end = $now->() + $seconds;
  while ((my $left = $end - $now->()) > 0) {
    my $bits = "";
    vec($bits, fileno($hears), 1) = 1;
    select($bits, undef, undef, $left) or last;
    my $from = recv($hears, my $packet, 2048, 0) or next;
    my $head = 4 * (ord($packet) & 15);
    my (undef, $source) = unpack_sockaddr_in($from);
    print "router\t", ord(substr($packet, $head + 1, 1)), "\t", inet_ntoa($source), "\n";
  }
' "$vip" "$address" "$seconds" | sort -u
[ -n "$vip" ] || exit 0
# What is remembered of an owner from earlier is confirmed or forgotten after a while.
for wait in 1 2 3 4 5 6 7 8 9 10; do
  case $(ip neigh show "$vip") in
    *' REACHABLE'*) ip neigh show "$vip" | sed -n 's/.* lladdr \([^ ]*\).*/owner\t\1/p'; exit 0 ;;
    *' STALE'* | *' DELAY'* | *' PROBE'*) sleep 1 ;;
    *) exit 0 ;;
  esac
done
