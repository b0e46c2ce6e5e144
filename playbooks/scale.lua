-- Adds, removes and replaces masters and members of etcd, while clients go on working.
--
--   kplay playbooks/scale.lua -i inventory/hdss7.yaml --check    lists the steps
--   kplay playbooks/scale.lua -i inventory/hdss7.yaml            does them
--
-- Say in the inventory what is to be: a host that is to come stands in `masters` and `etcd`; one that is to go stands in the group
-- `leaving` and in no other. To put one host in another's place, do both at once. A host that is to go may be dead. Afterwards take it
-- out of the inventory.
--
-- A machine that was lost comes back under its old name and address without any change of the inventory: install it anew, and run
-- this. Its member of etcd, which is known and holds nothing any more, is removed and joins again.
--
-- A member joins as a learner, which counts for no majority, and gets its vote when it has all the others have: etcd goes on working
-- whatever becomes of it meanwhile. Run again after anything that stopped it, and soon if that was a machine with its old address:
-- where apiservers look for a member and find a learner, which refuses writes, some fail at first.

local cluster = require "cluster"
local fit = require "fit"
local health = require "health"
local procedure = require "procedure"
local rolling = require "rolling"

local goes = pcall(hosts, "leaving")
local function leaving()
  return goes and hosts("leaving") or {}
end

if check_mode then
  procedure({
    name = "scale",
    { "look on all machines for what would fail half way" },
    { "remove members of etcd from it that are to go and are dead, or whose machine has lost what it held" },
    { "have hosts of the group `etcd` that are no members join it, one at a time, without a vote until they hold what the others hold" },
    { "bring masters and proxies to what the inventory says (apiserver.lua, proxy.lua): new masters, addresses of etcd, upstreams" },
    { "give new masters a kube-controller-manager and a kube-scheduler where others have some" },
    { "stop proxies, apiservers, controllers and members of etcd on hosts of the group `leaving`, and remove these members" },
  })
  return
end

-- The others have to know a new machine by its name, and it them.
if hosts("etcd")[1].vars:get("reach_by_name", false) then
  require "nodes"
end

-- A machine that could not become a master must not have joined etcd before that is found.
fit.all("etcd:masters", fit.machine)

-- Returns etcdctl's command line on a member.
local function etcdctl(member, words)
  local folder = member.vars:get("etcd_folder", "/etc/etcd/ssl")
  return "etcdctl --endpoints=https://" .. member.vars.address .. ":2379 --cacert=" .. folder .. "/ca.pem --cert=" .. folder
    .. "/etcd.pem --key=" .. folder .. "/etcd-key.pem " .. words
end

local function peer(host)
  return "https://" .. host.vars.address .. ":2380"
end

-- The member that is asked, and all members by peer address: `{ id = …, name = …, started = …, learner = … }`.
local asked, members

local function ask()
  members = {}
  local list = asked:shell(
    { command = etcdctl(asked, "member list"), env = { ETCDCTL_API = "3" }, reads_only = true },
    { name = "members of etcd" }
  )
  for line in list.stdout:gmatch("[^\n]+") do
    local id, state, name, address, learner = line:match("^(%x+), (%w+), ([^,]*), ([^,]+), [^,]*, (%w+)$")
    members[address] = { id = id, name = name, started = state == "started", learner = learner == "true" }
  end
end

-- Has the member that is asked do something to the list of members.
local function change(words, options)
  asked:shell({ command = etcdctl(asked, words), env = { ETCDCTL_API = "3" } }, options)
  ask()
end

local function remove(host)
  if members[peer(host)] then
    change("member remove " .. members[peer(host)].id, { name = "remove member " .. host.name })
  end
end

-- Returns whether a host has what a member of etcd keeps.
local function holds_data(host)
  local folder = host.vars:get("etcd_data_folder", "/var/lib/etcd") .. "/member"
  return host:stat({ path = folder, digest = false }, { name = "does it hold the data of a member?" }).exists, folder
end

play {
  name = "members of etcd",
  hosts = "localhost",
  any_error_stops = true,
  run = function(controller)
    for _, member in ipairs(hosts("etcd")) do
      if not asked and member:systemd({ name = "etcd", only_look = true }, { name = "is there a member of etcd?" }).state == "active" then
        asked = not health.etcd_member(member, { timeout = 10 }, { name = "is it healthy?", ignore_errors = true }).failed and member or nil
      end
    end
    if not asked then
      controller:fail("no host of the group `etcd` runs a healthy member: a new cluster is made by playbooks/site.lua; one that has lost "
        .. "its majority needs its members back first, or a backup")
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
    local holds, folder = holds_data(host)
    if known and known.started and not known.learner and holds then
      return
    end
    if not known and holds then
      host:fail(folder .. " holds the data of a member that etcd does not know: of one that was removed, or of another cluster. "
        .. "Remove that folder if nobody needs it")
    end
    health.etcd_members(asked, members, peer(host))
    if known and known.started and not holds then
      -- The machine was lost. As long as its member is known, the others wait for it, and it could not begin with nothing.
      remove(host)
      known = nil
    end
    cluster.pki(host)
    local list = { { name = host.name, address = host.vars.address } }
    for address, member in pairs(members) do
      if member.started and address ~= peer(host) then
        table.insert(list, { name = member.name, address = address:match("^https://(.+):2380$") })
      end
    end
    host:role("etcd", { name = host.name, members = list, cluster_state = "existing", steps = { "configure", "install" } })
    if not known then
      change("member add " .. host.name .. " --learner --peer-urls=" .. peer(host), { name = "add member " .. host.name .. ", without a vote" })
    end
    host:role("etcd", { name = host.name, members = list, cluster_state = "existing", steps = { "start" } })
    ask()
    if members[peer(host)].learner then
      -- Refused until it has caught up.
      change("member promote " .. members[peer(host)].id, { name = "give " .. host.name .. " its vote", retries = 60, delay = 1 })
    end
  end,
}

require "apiserver"
if #health.proxies() > 0 then
  require "proxy"
end

-- A master beside others that have controllers has some, too.
play {
  name = "controllers of new masters",
  hosts = "masters",
  serial = 1,
  any_error_stops = true,
  run = function(master)
    if rolling.has_any_controllers() and not rolling.has_controllers(master) then
      cluster.controllers(master, { "configure", "serve", "check" })
    end
  end,
}

if goes then
  play {
    name = "hosts that go: what clients use",
    hosts = "leaving",
    run = function(host)
      -- A web server that stands in front of something else is none of ours.
      local proxy = host:command(
        { command = { "grep", "-q", "upstream kube-apiserver", host.vars:get("nginx_conf", "/etc/nginx/nginx.conf") }, reads_only = true, ok_codes = { 0, 1, 2 } },
        { name = "does it stand in front of apiservers?" }
      )
      for _, unit in ipairs(proxy.code == 0 and { "keepalived", "nginx" } or {}) do
        if host:systemd({ name = unit, only_look = true }, { name = "is there a " .. unit .. "?" }).enabled ~= "" then
          host:systemd({ name = unit, state = "stopped", enabled = false })
        end
      end
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
      host:file({ path = host.vars:get("etcd_data_folder", "/var/lib/etcd") .. "/member", state = "absent" })
    end,
  }
end
