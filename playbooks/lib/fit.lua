-- Looking at all machines before the first one is changed, by role preflight.
--
--   local fit = require "fit"
--   fit.all("etcd:masters", fit.machine)

local cluster = require "cluster"

local fit = {}

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

-- Returns what role preflight is to look at on a host, whatever becomes of it and of others.
function fit.machine(host)
  local master = cluster.is_in(host, "masters")
  local folders = {}
  if master then
    folders["/usr/local"] = 1024
  end
  if cluster.is_in(host, "etcd") then
    folders["/var/lib/etcd"] = 512
  end
  return {
    ports = ports(host),
    reserved_ports = master and { host.vars:get("secure_port", 6443), host.vars:get("proxy_port", 7443) } or {},
    kubernetes_version = master and host.vars.kubernetes_version or "",
    archive = master and cluster.archive(host) or "",
    checksum = master and host.vars:get("kubernetes_checksum", "") or "",
    flags = master and cluster.flags(host) or {},
    folders = folders,
  }
end

-- Declares the plays that look at hosts. All of them say what is wrong with them before the run stops.
--   look(host)  returns what role preflight is to look at
function fit.all(everybody, look)
  -- Hosts that have not passed yet, by name.
  local unfit = {}

  play {
    name = "preflight",
    hosts = everybody,
    run = function(host)
      unfit[host.name] = true
      host:role("preflight", look(host))
      unfit[host.name] = nil
    end,
  }

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
end

return fit
