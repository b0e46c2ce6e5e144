//! A client that works while something is done to a cluster, and what it has seen.

use std::process::Child;

use crate::support::Lab;

/// A client on a master that writes and reads all the time, and what became of its requests.
pub struct Client<'a> {
    lab: &'a Lab,
    masters: &'a [&'a str],
    child: Child,
    since: String,
}

/// One request after the other, each tried again up to five times; a line for each that failed at first or for good.
const CLIENT: &str = r#"
    rm -f /root/stop /root/client.*
    S=$1
    U=$2/api/v1/namespaces/default/configmaps
    ask() {
      code=$(curl -s -m 5 -o /dev/null -w '%{http_code}' -H 'Accept: application/vnd.kubernetes.protobuf' -H 'Content-Type: application/json' \
        --cacert $S/ca.pem --cert $S/admin.pem --key $S/admin-key.pem "$@")
      test "$code" = 200
    }
    # A control plane that has only just come up makes its first namespace a moment later.
    until [ "$code" = 201 ] || [ "$code" = 409 ] || [ -e /root/stop ]; do
      ask -X POST -d '{"metadata":{"name":"probe"}}' $U || sleep 0.2
    done
    n=0
    until [ -e /root/stop ]; do
      n=$((n + 1))
      if [ $((n % 2)) = 0 ]; then set -- $U/probe; else set -- -X PUT -d "{\"metadata\":{\"name\":\"probe\"},\"data\":{\"n\":\"$n\"}}" $U/probe; fi
      ask "$@" && continue
      echo "failed $(date +%T.%3N) $code"
      for try in 1 2 3 4 5 for-good; do
        [ $try = for-good ] && echo "$try $(date +%T.%3N) $code"
        sleep 0.2
        ask "$@" && break
      done
    done >> /root/client.log
    echo $n > /root/client.requests
"#;

impl<'a> Client<'a> {
    /// Starts one on a host of inventory/hdss7.yaml, through the shared address.
    pub fn begin(lab: &'a Lab) -> Self {
        Self::of(lab, &["hdss7-21", "hdss7-22"], "/etc/kubernetes/server/ssl", "https://10.4.7.10:7443")
    }

    /// Starts one on the last of some masters, with the administrator's certificate in a folder of theirs, at an address.
    pub fn of(lab: &'a Lab, masters: &'a [&'a str], ssl: &str, address: &str) -> Self {
        let place = masters[masters.len() - 1];
        let since = lab.sh(place, "rm -f /root/stop; date +%s").success();
        let child = lab.start(&["lab", "exec", place, "--", "sh", "-c", CLIENT, "sh", ssl, address]);
        Self { lab, masters, child, since: since.trim().to_owned() }
    }

    /// Stops the client. No request has failed for good, fewer than one in a hundred at first, and at no time were two
    /// apiservers down.
    #[track_caller]
    pub fn is_content(self, during: &str) {
        self.is_content_but_for(during, 100);
    }

    /// The same where one request in so many may fail at first.
    #[track_caller]
    pub fn is_content_but_for(mut self, during: &str, one_in: usize) {
        let place = self.masters[self.masters.len() - 1];
        self.lab.sh(place, "touch /root/stop").success();
        self.child.wait().unwrap();
        let requests: usize = self.lab.sh(place, "cat /root/client.requests").success().trim().parse().unwrap();
        let log = self.lab.sh(place, "cat /root/client.log").success();
        let count = |word: &str| log.lines().filter(|line| line.starts_with(word)).count();
        let (failed, for_good) = (count("failed"), count("for-good"));
        println!("{during}: {requests} requests, {failed} failed at first, {for_good} for good\n{log}");
        assert!(requests > 20, "{during}: only {requests} requests");
        assert!(for_good == 0 && failed * one_in < requests, "{during}: {requests} requests, {failed} failed, {for_good} for good:\n{log}");

        let down: Vec<Vec<(f64, f64)>> = self.masters.iter().map(|master| self.down(master)).collect();
        for (number, spans) in down.iter().enumerate() {
            for (one, other) in spans.iter().flat_map(|one| down[number + 1..].iter().flatten().map(move |other| (one, other))) {
                assert!(one.1 < other.0 || other.1 < one.0, "{during}: two were down, {one:?} and {other:?}");
            }
        }
    }

    /// When a master's apiserver was down, as systemd tells: from its end to where it was ready again.
    fn down(&self, master: &str) -> Vec<(f64, f64)> {
        let script = format!(
            "journalctl -q -u kube-apiserver --since=@{} -o short-unix | grep -E 'systemd\\[1\\]: (Stopping|Started|.*exited)'; true",
            self.since
        );
        let mut spans = Vec::new();
        let mut since = None;
        for line in self.lab.sh(master, &script).success().lines() {
            let time: f64 = line.split(' ').next().unwrap().parse().unwrap();
            if line.contains(": Started") {
                spans.extend(since.take().map(|since| (since, time)));
            } else {
                since.get_or_insert(time);
            }
        }
        assert_eq!(since, None, "{master} is down");
        spans
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        // The client of a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
