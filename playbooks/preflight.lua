-- Looks on all machines, and into the release that is to be installed, for what would fail half way. Changes nothing. site.lua,
-- apiserver.lua, proxy.lua and upgrade.lua begin with it.
--
--   kplay playbooks/preflight.lua -i inventory/hdss7.yaml

local cluster = require "cluster"
local health = require "health"
local rolling = require "rolling"
local vip = require "vip"

rolling.ask()

-- Returns the ports that programs of the control plane are to listen on, on a host.
local function ports(host)
  local map = {}
  local function port(name, default)
    return string.format("%d", host.vars:get(name, default))
  end
  if cluster.is_in(host, "masters") then
    map[port("secure_port", 6443)] = "kube-apiserver"
    map["10257"], map["10259"] = "kube-controller-manager", "kube-scheduler"
  end
  if cluster.is_in(host, "etcd") then
    map["2379"], map["2380"] = "etcd", "etcd"
  end
  if cluster.is_in(host, "proxies") then
    map[port("proxy_port", 7443)] = "nginx"
  end
  return map
end

-- Hosts that have not passed yet, by name.
local unfit = {}

local everybody = #health.proxies() > 0 and "etcd:masters:proxies" or "etcd:masters"

play {
  name = "preflight",
  hosts = everybody,
  run = function(host)
    unfit[host.name] = true
    local master, member, proxy = cluster.is_in(host, "masters"), cluster.is_in(host, "etcd"), cluster.is_in(host, "proxies")
    local folders = {}
    if master then
      folders["/usr/local"] = 1024
    end
    if member then
      folders["/var/lib/etcd"] = 512
    end
    host:role("preflight", {
      ports = ports(host),
      reserved_ports = master and { host.vars:get("secure_port", 6443), host.vars:get("proxy_port", 7443) } or {},
      kubernetes_version = master and host.vars.kubernetes_version or "",
      archive = master and cluster.archive(host) or "",
      checksum = master and host.vars:get("kubernetes_checksum", "") or "",
      flags = master and cluster.flags(host) or {},
      members = member and cluster.etcd_endpoints() or {},
      -- Once there is a control plane, proxy.lua looks by itself, before it changes anything.
      vip_is_free = proxy and vip.wanted() and vip.is_nobodys(),
      proxies = proxy and not rolling.running() and cluster.addresses("proxies") or {},
      folders = folders,
    })
    unfit[host.name] = nil
  end,
}

-- All have said what is wrong with them before the run stops.
play {
  name = "all are fit",
  hosts = everybody,
  any_error_stops = true,
  run = function(host)
    local names = {}
    for name in pairs(unfit) do
      table.insert(names, name)
    end
    host:assert(
      { that = #names == 0, message = "nothing is changed anywhere, since " .. table.concat(names, " and ") .. " failed: see above" },
      { name = "all hosts are fit" }
    )
  end,
}
