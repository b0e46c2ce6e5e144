-- The layer-4 proxies in front of the apiservers, and the address that they hold in turn, as document 001 sets them up in 4.3.
--
--   kplay playbooks/proxy.lua -i inventory/hdss7.yaml --check --diff    says what it would do
--   kplay playbooks/proxy.lua -i inventory/hdss7.yaml                   does it
--
-- It needs the groups `proxies` and `masters`. One proxy is changed at a time: the preferred one first, so that it is the first
-- to take the address, or, once there is a holder, that one last; what fails is undone on that proxy, and the run stops. Without `vip`
-- in the inventory there is no shared address, and no keepalived: a single proxy, or one on each master for its own programs.
--
-- A new password or number of the router would keep proxies from hearing each other half way, and each would take the address.
-- Those that do not hold it are silent then until the holder has been changed: meanwhile nobody could stand in for it.

local cluster = require "cluster"
local health = require "health"
local rolling = require "rolling"
local vip = require "vip"

-- A forecast of a whole site has looked before anything would have changed, and cannot look any more.
local looked_before = check_mode and rolling.has_asked()

if not rolling.has_asked() then
  play {
    name = "who holds the address",
    hosts = "proxies",
    any_error_stops = true,
    run = function(host)
      if vip.wanted() then
        vip.note(host)
      end
    end,
  }
end

play {
  name = "proxies are fit",
  hosts = "proxies",
  any_error_stops = true,
  run = function(host)
    if looked_before then
      return
    end
    local port = string.format("%d", host.vars:get("proxy_port", 7443))
    host:role("preflight", {
      ports = { [port] = "nginx" },
      kubernetes_version = "",
      proxies = cluster.addresses("proxies"),
    })
  end,
}

play {
  name = "proxies that would not hear the holder fall silent",
  hosts = "proxies",
  any_error_stops = true,
  run = function(host)
    if vip.is_silenced(host) then
      host:systemd({ name = "keepalived", state = "stopped" }, { tags = "system" })
    end
  end,
}

play {
  name = "proxies, the holder of the address last",
  hosts = "proxies",
  order = function(list)
    if not vip.wanted() then
      return list
    end
    table.sort(list, function(one, other)
      if vip.held_by(one) ~= vip.held_by(other) then
        return vip.held_by(other)
      end
      return one.vars.priority > other.vars.priority
    end)
    return list
  end,
  serial = 1,
  any_error_stops = true,
  undo_on_failure = true,
  run = function(host)
    -- All files come before the first package, so that a forecast can be sure of them.
    cluster.proxy(host, { "configure" })
    if vip.wanted() then
      cluster.keepalived(host, { "configure" })
    end
    cluster.proxy(host, { "install", "serve", "check" })

    -- Every master that serves is reached through this proxy before its keepalived may take the address. A proxy that listens on the
    -- host alone is for the programs there.
    for _, master in ipairs(health.listens_alone(host) and { host } or hosts("masters")) do
      health.through(host, master, { onlyif = "systemctl is-active --quiet kube-apiserver" },
        { name = "/readyz through " .. host.name, when = not check_mode, retries = 10, delay = 1, tags = "system" })
    end

    if vip.wanted() then
      cluster.keepalived(host, vip.is_silenced(host) and { "install" } or { "install", "serve", "check" })
    end
  end,
}

play {
  name = "proxies that fell silent hear the holder",
  hosts = "proxies",
  serial = 1,
  any_error_stops = true,
  run = function(host)
    if vip.is_silenced(host) then
      cluster.keepalived(host, { "serve", "check" })
    end
  end,
}

play {
  name = "exactly one proxy holds the address",
  hosts = "localhost",
  tags = "system",
  run = function()
    if vip.wanted() and not check_mode then
      local holder = vip.wait(function() return true end, 30)
      if holder then
        print(holder.name .. " holds " .. holder.vars.vip)
      end
    end
  end,
}
