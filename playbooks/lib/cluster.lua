-- What several playbooks want to know of a cluster, read out of the inventory, and the calls of roles that they share.
--
--   local cluster = require "cluster"
--
-- Groups: `etcd` (members of etcd), `masters` (kube-apiserver and its companions), `proxies` (what stands in front of them).
-- A role finds most of its parameters among the inventory's variables by itself, under their own names. Here is what has to be
-- gathered from several hosts.

local encryption = require "encryption"

local cluster = {}

-- Returns the proxies; an inventory need not have any.
local has_proxies = pcall(hosts, "proxies")
function cluster.proxies()
  return has_proxies and hosts("proxies") or {}
end

-- Returns the address of each host of a group, in the inventory's order.
function cluster.addresses(group)
  local list = {}
  for _, host in ipairs(group == "proxies" and cluster.proxies() or hosts(group)) do
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

-- Returns the names of all hosts of a group.
function cluster.names(group)
  local list = {}
  for _, host in ipairs(hosts(group)) do
    table.insert(list, host.name)
  end
  return list
end

-- Returns under which addresses clients may reach an apiserver: all masters, the shared address or else the proxies, and masters that
-- are planned.
function cluster.apiserver_addresses(host)
  local list = cluster.addresses("masters")
  for _, address in ipairs(host.vars:get("vip") and { host.vars.vip } or cluster.addresses("proxies")) do
    table.insert(list, address)
  end
  for _, address in ipairs(host.vars:get("planned_masters", {})) do
    table.insert(list, address)
  end
  return list
end

-- Gives a host its certificates: as a member of etcd (`only` "etcd"), as a master (`only` "masters"), or all that it needs.
function cluster.pki(host, only)
  host:role("pki", {
    etcd = only ~= "masters" and cluster.is_in(host, "etcd"),
    apiserver = only ~= "etcd" and cluster.is_in(host, "masters"),
    apiserver_addresses = cluster.apiserver_addresses(host),
    apiserver_names = host.vars:get("reach_by_name", false) and cluster.names(has_proxies and "masters:proxies" or "masters") or {},
  })
end

-- Returns the archive of the release that the inventory names.
function cluster.archive(host)
  local built = env("KPLAY_CACHE", "/var/cache/kplay") .. "/kubernetes-server-linux-amd64.tar.gz"
  return host.vars:get("kubernetes_archive", built)
end

-- Gives a master the programs of the release that the inventory names: unpacks them beside those in use, turns the link, or both.
function cluster.binaries(host, steps)
  host:role("kubernetes-binaries", {
    version = host.vars.kubernetes_version,
    archive = cluster.archive(host),
    checksum = host.vars:get("kubernetes_checksum", ""),
    steps = steps,
  })
end

-- Gives a member of etcd some steps of role etcd.
function cluster.etcd(host, steps)
  return host:role("etcd", { name = host.name, members = cluster.etcd_members(), steps = steps })
end

-- Gives a master some steps of role kube-apiserver, and with `configure` what its flags name besides certificates: the keys that
-- encrypt Secrets, and static tokens, where the inventory wants them.
function cluster.apiserver(host, steps)
  local configure = false
  for _, step in ipairs(steps) do
    configure = configure or step == "configure"
  end
  if configure and host.vars:get("encryption_config", "") ~= "" then
    host:role("encryption-at-rest", {
      encryption_keys = host.vars.pki_folder .. "/encryption-keys.yaml",
      encryption_peers = cluster.names("masters"),
      only_read = encryption.only_read(host),
    })
  end
  if configure and host.vars:get("token_auth_file", "") ~= "" then
    host:role("token-file", { tokens = host.vars.pki_folder .. "/token.csv", token_peers = cluster.names("masters") })
  end
  return host:role("kube-apiserver", {
    apiserver_count = #hosts("masters"),
    etcd_servers = cluster.etcd_endpoints(),
    local_etcd = cluster.is_in(host, "etcd"),
    log_level = host.vars:get("apiserver_log_level", 2),
    target_ram_mb = host.vars:get("apiserver_target_ram_mb"),
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
  return host:role("keepalived", { peers = peers, steps = steps })
end

-- Returns the flags of all programs of the control plane, as they are to be on a master.
function cluster.flags(host)
  local flags = {}
  for _, program in ipairs({ "kube-apiserver", "kube-controller-manager", "kube-scheduler" }) do
    flags[program] = program == "kube-apiserver" and cluster.apiserver(host, { "flags" }) or host:role(program, { steps = { "flags" } })
  end
  return flags
end

-- Gives a master some steps of kube-controller-manager and kube-scheduler.
function cluster.controllers(host, steps)
  host:role("kube-controller-manager", { steps = steps })
  host:role("kube-scheduler", { steps = steps })
end

return cluster
