-- Looks on all machines, and into the release that is to be installed, for what would fail half way. Changes nothing. Other
-- playbooks begin with it.
--
--   kplay playbooks/preflight.lua -i inventory/hdss7.yaml

local cluster = require "cluster"
local health = require "health"

-- Returns the ports that programs of the control plane are to listen on, on a host.
local function ports(host)
  local map = {}
  local function port(name, default)
    return string.format("%d", host.vars:get(name, default))
  end
  if cluster.is_in(host, "masters") then
    map[port("secure_port", 6443)] = "kube-apiserver"
  end
  if cluster.is_in(host, "etcd") then
    map["2379"], map["2380"] = "etcd", "etcd"
  end
  if cluster.is_in(host, "proxies") then
    map[port("proxy_port", 7443)] = "nginx"
  end
  return map
end

play {
  name = "preflight",
  hosts = #health.proxies() > 0 and "etcd:masters:proxies" or "etcd:masters",
  any_error_stops = true,
  run = function(host)
    local master, member = cluster.is_in(host, "masters"), cluster.is_in(host, "etcd")
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
      flags = master and cluster.apiserver(host, { "flags" }) or {},
      members = member and cluster.etcd_endpoints() or {},
      folders = folders,
    })
  end,
}

-- The shared address is held by one of the proxies, or by nobody.
local held = false

local function holds(host)
  for _, list in pairs(host.facts.addresses) do
    for _, address in ipairs(list) do
      held = held or address == host.vars:get("vip")
    end
  end
end

local function answers(host)
  local vip = host.vars:get("vip")
  if held or not vip or host.name ~= health.proxies()[1].name then
    return
  end
  -- Whoever has the address tells where it is, whatever becomes of the connection.
  host:wait_for({ port = 9, host = vip, state = "closed", timeout = 1 }, { name = "ask who has " .. vip, ignore_errors = true })
  local neighbour = host:command({ command = { "ip", "neigh", "show", vip }, reads_only = true }, { name = "who has " .. vip })
  if not neighbour.skipped and neighbour.stdout:find("REACHABLE") then
    host:fail("`vip` " .. vip .. " is used by a machine that is none of the proxies, " .. (neighbour.stdout:match("lladdr (%S+)") or ""))
  end
end

if #health.proxies() > 0 then
  play { name = "who has the shared address", hosts = "proxies", tags = "system", run = holds }
  play { name = "who else has the shared address", hosts = "proxies", tags = "system", any_error_stops = true, run = answers }
end
