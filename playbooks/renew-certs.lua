-- Issues all certificates of a cluster anew, due or not, and has everything that uses them start anew with them: members of etcd,
-- apiservers, controllers, kubeconfigs; one machine at a time, while clients go on working.
--
--   kplay playbooks/renew-certs.lua -i inventory/hdss7.yaml --check    says what it would do
--   kplay playbooks/renew-certs.lua -i inventory/hdss7.yaml            does it
--
-- It also brings back a cluster whose certificates have all expired. Keys stay as they are. Certificates that are due are renewed by playbooks/site.lua as well. A run that was stopped is gone on
-- with by `-e issued_after=N`, where N is the number that it has told: what it has renewed already is left alone then.

local cluster = require "cluster"
local rolling = require "rolling"

-- Certificates that were issued before this moment are issued again.
local now = os.time()

rolling.ask()

play {
  name = "from when on",
  hosts = "localhost",
  run = function(host)
    print("certificates issued before " .. os.date("!%Y-%m-%dT%H:%M:%SZ", host.vars:get("issued_after", now)) .. " are renewed; if this run is stopped, go on with `-e issued_after="
      .. string.format("%d", host.vars:get("issued_after", now)) .. "`")
  end,
}

-- One after the other they could not become healthy again.
play {
  name = "members of etcd, together where none is healthy",
  hosts = "etcd",
  vars = { issued_after = now },
  any_error_stops = true,
  run = function(member)
    if not rolling.is_member(member) then
      cluster.pki(member, "etcd")
      cluster.etcd(member, { "start" })
    end
  end,
}

rolling.members({
  name = "members of etcd, one at a time",
  vars = { issued_after = now },
  run = function(member)
    cluster.pki(member)
    cluster.etcd(member, { "restart" })
  end,
})

rolling.masters({
  name = "masters, one at a time",
  vars = { issued_after = now },
  run = function(master)
    if cluster.is_in(master, "etcd") then
      rolling.other_members_are_healthy(master)
    end
    cluster.pki(master)
    if cluster.is_in(master, "etcd") then
      cluster.etcd(master, { "restart" })
    end
    cluster.apiserver(master, { "configure", "serve", "check" })
    rolling.controllers(master, { "configure", "serve", "check" })
  end,
})
