-- What several playbooks want to know of a cluster, read out of the inventory, and the calls of roles that they share.
--
--   local cluster = require "cluster"
--
-- Groups: `etcd` (members of etcd), `masters` (kube-apiserver and its companions), `proxies` (what stands in front of them).
-- A role finds most of its parameters among the inventory's variables by itself, under their own names. Here is what has to be
-- gathered from several hosts.

local cluster = {}

-- Returns the address of each host of a group, in the inventory's order.
function cluster.addresses(group)
  local list = {}
  for _, host in ipairs(hosts(group)) do
    table.insert(list, host.vars.address)
  end
  return list
end

-- Returns whether a host is in a group.
function cluster.is_in(host, group)
  for _, name in ipairs(host.groups) do
    if name == group then
      return true
    end
  end
  return false
end

-- Returns under what others reach a host: its address, or its name where the inventory says `reach_by_name: true`.
function cluster.reached_as(host)
  return host.vars:get("reach_by_name", false) and host.name or host.vars.address
end

-- Returns the members of etcd: `{ { name = …, address = … }, … }`.
function cluster.etcd_members()
  local members = {}
  for _, member in ipairs(hosts("etcd")) do
    table.insert(members, { name = member.name, address = member.vars.address })
  end
  return members
end

-- Returns where clients reach etcd: `{ "https://10.4.7.12:2379", … }`.
function cluster.etcd_endpoints()
  local endpoints = {}
  for _, member in ipairs(hosts("etcd")) do
    table.insert(endpoints, "https://" .. cluster.reached_as(member) .. ":2379")
  end
  return endpoints
end

-- Returns under what clients may reach an apiserver: all masters, those that are planned, the shared address if there is one.
function cluster.apiserver_addresses(host)
  local list = cluster.addresses("masters")
  local shared = host.vars:get("vip")
  if shared then
    table.insert(list, shared)
  end
  for _, address in ipairs(host.vars:get("planned_masters", {})) do
    table.insert(list, address)
  end
  return list
end

-- Gives a host its certificates.
function cluster.pki(host)
  host:role("pki", {
    etcd = cluster.is_in(host, "etcd"),
    apiserver = cluster.is_in(host, "masters"),
    apiserver_addresses = cluster.apiserver_addresses(host),
  })
end

-- Gives a master the programs of the release that the inventory names: unpacks them beside those in use, turns the link, or both.
function cluster.binaries(host, steps)
  local built = env("KPLAY_CACHE", "/var/cache/kplay") .. "/kubernetes-server-linux-amd64.tar.gz"
  host:role("kubernetes-binaries", {
    version = host.vars.kubernetes_version,
    archive = host.vars:get("kubernetes_archive", built),
    checksum = host.vars:get("kubernetes_checksum", ""),
    steps = steps,
  })
end

-- Gives a member of etcd some steps of role etcd.
function cluster.etcd(host, steps)
  host:role("etcd", { name = host.name, members = cluster.etcd_members(), steps = steps })
end

-- Gives a master some steps of role kube-apiserver.
function cluster.apiserver(host, steps)
  return host:role("kube-apiserver", {
    apiserver_count = #hosts("masters"),
    etcd_servers = cluster.etcd_endpoints(),
    local_etcd = cluster.is_in(host, "etcd"),
    log_level = host.vars:get("apiserver_log_level", 2),
    target_ram_mb = host.vars:get("apiserver_target_ram_mb", 1024),
    steps = steps,
  })
end

-- Returns a master as proxies know it: `10.4.7.21:6443`.
local function upstream(master)
  return cluster.reached_as(master) .. ":" .. string.format("%d", master.vars:get("secure_port", 6443))
end

-- Gives a proxy some steps of role apiserver-proxy, in front of all masters. To a master that is `drained` it sends nobody new.
function cluster.proxy(host, steps, drained)
  local upstreams = {}
  for _, master in ipairs(hosts("masters")) do
    table.insert(upstreams, upstream(master))
  end
  host:role("apiserver-proxy", { upstreams = upstreams, drained = drained and { upstream(drained) } or {}, steps = steps })
end

-- Gives a proxy some steps of role keepalived, beside the other proxies.
function cluster.keepalived(host, steps)
  local peers = {}
  for _, other in ipairs(hosts("proxies")) do
    if other.name ~= host.name then
      table.insert(peers, { address = other.vars.address, priority = other.vars.priority })
    end
  end
  host:role("keepalived", { peers = peers, steps = steps })
end

return cluster
