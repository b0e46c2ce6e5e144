-- Adds, removes and replaces masters and members of etcd, while clients go on working.
--
--   kplay playbooks/scale.lua -i inventory/hdss7.yaml --check    lists the steps
--   kplay playbooks/scale.lua -i inventory/hdss7.yaml            does them
--
-- Say in the inventory what is to be: a host that is to come stands in `masters` and `etcd`; one that is to go stands in the group
-- `leaving` and in no other. To replace a host, do both at once. A host that is to go may be dead. Afterwards take it out of the
-- inventory. Run it again after anything that stopped it.

local cluster = require "cluster"
local health = require "health"
local procedure = require "procedure"

local goes = pcall(hosts, "leaving")
local function leaving()
  return goes and hosts("leaving") or {}
end

if check_mode then
  procedure({
    name = "scale",
    { "remove members of etcd from it that are to go and are dead" },
    { "have hosts of the group `etcd` that are no members join it, one at a time" },
    { "bring masters and proxies to what the inventory says (apiserver.lua, proxy.lua): new masters, addresses of etcd, upstreams" },
    { "stop apiservers, controllers and members of etcd on hosts of the group `leaving`, and remove these members" },
  })
  return
end

-- Returns etcdctl's command line on a member.
local function etcdctl(member, words)
  local folder = member.vars:get("etcd_folder", "/etc/etcd/ssl")
  return "etcdctl --endpoints=https://" .. member.vars.address .. ":2379 --cacert=" .. folder .. "/ca.pem --cert=" .. folder
    .. "/etcd.pem --key=" .. folder .. "/etcd-key.pem " .. words
end

local function peer(host)
  return "https://" .. host.vars.address .. ":2380"
end

-- The member that is asked, and all members by peer address: `{ id = …, name = …, started = … }`.
local asked, members

local function ask()
  members = {}
  local list = asked:shell(
    { command = etcdctl(asked, "member list"), env = { ETCDCTL_API = "3" }, reads_only = true },
    { name = "members of etcd" }
  )
  for line in list.stdout:gmatch("[^\n]+") do
    local id, state, name, address = line:match("^(%x+), (%w+), ([^,]*), ([^,]+),")
    members[address] = { id = id, name = name, started = state == "started" }
  end
end

local function remove(host)
  if members[peer(host)] then
    asked:shell(
      { command = etcdctl(asked, "member remove " .. members[peer(host)].id), env = { ETCDCTL_API = "3" } },
      { name = "remove member " .. host.name }
    )
    ask()
  end
end

play {
  name = "members of etcd",
  hosts = "localhost",
  any_error_stops = true,
  run = function(controller)
    for _, member in ipairs(hosts("etcd")) do
      if not asked and member:systemd({ name = "etcd", only_look = true }, { name = "is there a member of etcd?" }).state == "active" then
        asked = member
      end
    end
    if not asked then
      controller:fail("no host of the group `etcd` runs a member: a new cluster is made by playbooks/site.lua")
    end
    ask()
    for _, host in ipairs(leaving()) do
      local alive = asked:wait_for({ port = 2379, host = host.vars.address, timeout = 3 }, { name = "is " .. host.name .. " alive?", ignore_errors = true })
      if alive.failed then
        remove(host)
      end
    end
  end,
}

play {
  name = "new members of etcd, one at a time",
  hosts = "etcd",
  serial = 1,
  any_error_stops = true,
  run = function(host)
    local known = members[peer(host)]
    if known and known.started then
      return
    end
    health.etcd_members(asked, members)
    cluster.pki(host)
    local list = { { name = host.name, address = host.vars.address } }
    for address, member in pairs(members) do
      if member.started then
        table.insert(list, { name = member.name, address = address:match("^https://(.+):2380$") })
      end
    end
    host:role("etcd", { name = host.name, members = list, cluster_state = "existing", steps = { "configure", "install" } })
    if not known then
      asked:shell(
        { command = etcdctl(asked, "member add " .. host.name .. " --peer-urls=" .. peer(host)), env = { ETCDCTL_API = "3" } },
        { name = "add member " .. host.name }
      )
    end
    host:role("etcd", { name = host.name, members = list, cluster_state = "existing", steps = { "start" } })
    ask()
  end,
}

require "apiserver"
if #health.proxies() > 0 then
  require "proxy"
end

if goes then
  play {
    name = "hosts that go: what clients use",
    hosts = "leaving",
    run = function(host)
      for _, unit in ipairs({ "kube-scheduler", "kube-controller-manager", "kube-apiserver" }) do
        if host:systemd({ name = unit, only_look = true }, { name = "is there a " .. unit .. "?" }).enabled ~= "" then
          host:systemd({ name = unit, state = "stopped", enabled = false })
        end
      end
    end,
  }

  play {
    name = "hosts that go: members of etcd",
    hosts = "localhost",
    any_error_stops = true,
    run = function()
      for _, host in ipairs(leaving()) do
        remove(host)
      end
    end,
  }

  play {
    name = "hosts that go: etcd",
    hosts = "leaving",
    run = function(host)
      if host:systemd({ name = "etcd", only_look = true }, { name = "is there an etcd?" }).enabled ~= "" then
        host:systemd({ name = "etcd", state = "stopped", enabled = false })
      end
      -- A member that has been removed can never come back with what it has.
      host:file({ path = host.vars:get("data_folder", "/var/lib/etcd") .. "/member", state = "absent" })
    end,
  }
end
