# Who else is on the link of a proxy that does not run keepalived yet: asks by ARP who has the shared address, in a way that makes
# nobody remember anything, and listens for announcements of virtual routers meanwhile. Changes nothing; joins their multicast group
# for that long.
#   usage: link.sh VIP ADDRESS INTERFACE SECONDS [PROXY]...
#
#   router      ID SOURCE           an announcement, and who has sent it
#   owner       MAC                 of a machine that has the shared address and is none of the proxies: one of these may have taken
#                                   it a moment ago
#   nolink      INTERFACE           there is none of that name
#   blind       PROGRAM             that is missing here, so that nothing was looked at

[ -z "$KPLAY_ROOT" ] || exit 0
[ -e "/sys/class/net/$3" ] || { printf 'nolink\t%s\n' "$3"; exit 0; }
command -v perl > /dev/null || { printf 'blind\tperl\n'; exit 0; }
exec perl -MSocket -e '
  my ($vip, $address, $interface, $seconds, @proxies) = @ARGV;
  my $now = eval { require Time::HiRes; \&Time::HiRes::time } || sub { time };
  my $of_interface = sub {
    open(my $file, "<", "/sys/class/net/$interface/$_[0]") or exit;
    my ($line) = <$file> =~ /(\S+)/;
    return $line;
  };
  my (%seen, %answers);
  my $tell = sub { my $line = join("\t", @_); print "$line\n" unless $seen{$line}++ };
  my $bits = "";

  # 112 is the number of VRRP; membership says from which interface the group 224.0.0.18 is listened to.
  socket(my $routers, AF_INET, SOCK_RAW, 112) or exit;
  setsockopt($routers, IPPROTO_IP, 35, inet_aton("224.0.0.18") . inet_aton($address)) or exit;
  vec($bits, fileno($routers), 1) = 1;

  # A probe has no sender address: whoever has the address that is asked for answers, and nobody else takes note.
  my $protocol = unpack("S", pack("n", 0x0806));
  socket(my $arp, 17, SOCK_RAW, $protocol) or exit;
  bind($arp, pack("S S i S C C a8", 17, $protocol, $of_interface->("ifindex"), 0, 0, 0, "")) or exit;
  (my $own = $of_interface->("address")) =~ tr/://d;
  for my $asked ($vip, @proxies) {
    syswrite($arp, pack("H12 H12 n n n C C n H12 x4 x6 a4", "f" x 12, $own, 0x0806, 1, 0x0800, 6, 4, 1, $own, inet_aton($asked)));
  }
  vec($bits, fileno($arp), 1) = 1;

  my $end = $now->() + $seconds;
  while ((my $left = $end - $now->()) > 0) {
    select(my $ready = $bits, undef, undef, $left) or last;
    if (vec($ready, fileno($routers), 1)) {
      my $from = recv($routers, my $packet, 2048, 0) or next;
      my (undef, $source) = unpack_sockaddr_in($from);
      $tell->("router", ord(substr($packet, 4 * (ord($packet) & 15) + 1, 1)), inet_ntoa($source));
    }
    if (vec($ready, fileno($arp), 1)) {
      sysread($arp, my $frame, 2048) or next;
      my ($sender, $has) = unpack("x22 H12 a4", $frame);
      $answers{inet_ntoa($has)}{$sender} = 1;
    }
  }

  my %ours = map { %{$answers{$_} || {}} } @proxies;
  $tell->("owner", join(":", unpack("(a2)*", $_))) for grep { !$ours{$_} } sort keys %{$answers{$vip} || {}};
' "$@"
