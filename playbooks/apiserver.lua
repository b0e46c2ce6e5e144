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
--
-- What runs already is changed in step 4, one machine at a time, its files included: what does not work is undone on the one machine
-- that got it, and no other has seen it.

local cluster = require "cluster"
local encryption = require "encryption"
local rolling = require "rolling"

require "preflight"

-- Step 1: certificates. (Document 001, 4.2.3)
play {
  name = "certificates",
  hosts = "etcd:masters",
  any_error_stops = true,
  run = function(host)
    if not rolling.is_member(host) then
      cluster.pki(host, "etcd")
    end
    if not rolling.running() then
      cluster.pki(host, "masters")
    end
  end,
}

-- Step 2: binaries. (4.2.3, second) The release in use stays in use.
play {
  name = "binaries",
  hosts = "masters",
  any_error_stops = true,
  run = function(master)
    cluster.binaries(master, rolling.running() and { "unpack" } or { "unpack", "link" })
  end,
}

-- Step 3: configuration. (4.2.4) All files come before the first package, so that a forecast can be sure of them.
play {
  name = "configuration",
  hosts = "etcd:masters",
  any_error_stops = true,
  run = function(host)
    local member = cluster.is_in(host, "etcd")
    if member and not rolling.is_member(host) then
      cluster.etcd(host, { "configure" })
    end
    if cluster.is_in(host, "masters") and not rolling.running() then
      cluster.apiserver(host, { "configure" })
    end
    if member then
      cluster.etcd(host, { "install" })
    end
  end,
}

-- Step 4: services. (4.2.5) Those that do not run start together, since members of a new cluster wait for each other. Then those that
-- ran before get their certificates and configuration one at a time, and restart if that has changed anything.
play {
  name = "etcd",
  hosts = "etcd",
  any_error_stops = true,
  run = function(host)
    if not rolling.is_member(host) then
      cluster.etcd(host, { "start" })
    end
  end,
}

play {
  name = "etcd, one member at a time",
  hosts = "etcd",
  order = rolling.order,
  serial = 1,
  any_error_stops = true,
  undo_on_failure = true,
  run = function(host)
    if rolling.is_member(host) then
      cluster.pki(host, "etcd")
      cluster.etcd(host, { "configure" })
      rolling.restart_etcd(host)
      cluster.etcd(host, { "start" })
    end
  end,
}

-- Step 5 follows step 4 on each master: the next one begins when this one serves. Where masters serve already, steps 1 to 3 come
-- here, and a master is drained at the proxies before its apiserver restarts.
local function masters(name, when)
  rolling.apiservers({
    name = name,
    when = when,
    prepare = function(master)
      if rolling.running() then
        cluster.pki(master, "masters")
        cluster.binaries(master, { "link" })
        cluster.apiserver(master, { "configure" })
      end
    end,
  })
end

masters("kube-apiserver, one master at a time")

-- What some apiserver could not read until now is encrypted only when all can.
play {
  name = "all masters can read what is to be encrypted",
  hosts = "localhost",
  run = encryption.all_can_read,
}
masters("encryption, one master at a time", encryption.was_awaited)
