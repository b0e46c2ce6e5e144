-- A highly available kube-apiserver on bare metal, as document 001 does it by hand, in its five steps: certificates, binaries,
-- configuration, service, state check. Where kplay does something else than the document stands in DEVIATIONS.md.
--
--   kplay playbooks/apiserver.lua -i inventory/hdss7.yaml --check --diff    says what it would do
--   kplay playbooks/apiserver.lua -i inventory/hdss7.yaml                   does it
--
-- Tasks that need a running system (users, packages, services, the state check) have the tag `system`:
--
--   kplay playbooks/apiserver.lua -i inventory/here.yaml --skip-tags system
--
-- writes the rest into folders of this machine, without root.
--
-- It needs the groups `etcd` and `masters`; what else the inventory may say is shown by inventory/hdss7.yaml.

local cluster = require "cluster"
local rolling = require "rolling"

rolling.ask()

-- Step 1: certificates. (Document 001, 4.2.3)
play {
  name = "certificates",
  hosts = "etcd:masters",
  run = cluster.pki,
}

-- Step 2: binaries. (4.2.3, second)
play {
  name = "binaries",
  hosts = "masters",
  run = cluster.binaries,
}

-- Step 3: configuration. (4.2.4) All files come before the first package, so that a forecast can be sure of them.
play {
  name = "configuration",
  hosts = "etcd:masters",
  run = function(host)
    if cluster.is_in(host, "etcd") then
      cluster.etcd(host, { "configure" })
    end
    if cluster.is_in(host, "masters") then
      cluster.apiserver(host, { "configure" })
    end
    if cluster.is_in(host, "etcd") then
      cluster.etcd(host, { "install" })
    end
  end,
}

-- Step 4: services. (4.2.5) Members of etcd that run already restart one at a time, and only if something of theirs has changed.
-- Then those that do not run start together: members of a new cluster wait for each other.
play {
  name = "etcd, one member at a time",
  hosts = "etcd",
  order = rolling.order,
  serial = 1,
  any_error_stops = true,
  run = function(host)
    rolling.restart_etcd(host)
  end,
}

play {
  name = "etcd",
  hosts = "etcd",
  any_error_stops = true,
  run = function(host)
    cluster.etcd(host, { "start" })
  end,
}

-- Step 5 follows step 4 on each master: the next one begins when this one serves. A master that serves already is drained at the
-- proxies before its apiserver restarts.
rolling.masters({
  name = "kube-apiserver, one master at a time",
  pending = function(host)
    return cluster.apiserver(host, { "pending" })
  end,
  run = function(host)
    cluster.apiserver(host, { "serve", "check" })
  end,
})
