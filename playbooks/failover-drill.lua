-- Tries out that the shared address moves when its proxy fails, as document 001 does it: stops nginx on the proxy that holds the
-- address, waits until another one holds it, starts nginx again, and sees where the address then is.
--
--   kplay playbooks/failover-drill.lua -i inventory/hdss7.yaml --check    lists the steps
--   kplay playbooks/failover-drill.lua -i inventory/hdss7.yaml            does them
--
-- Connections through the address are cut, and clients connect again. When the drill fails half way, nginx is started again all
-- the same; when kplay itself is killed, playbooks/proxy.lua starts it.

local procedure = require "procedure"
local health = require "health"
local vip = require "vip"

assert(
  #health.proxies() > 1 and vip.wanted(),
  "a drill needs a shared address, `vip`, and a second machine in the group `proxies` to take it over: without it, every client would be cut off"
)

-- For how long the address has to stay where it is with `failback: manual`.
local STAYS = 10

local before, after, preferred

-- Starts nginx where it was stopped, and fails with the error that came first.
local function restored(f, ...)
  local well, result = pcall(f, ...)
  if not well then
    before:systemd({ name = "nginx", state = "started" }, { name = "start nginx again" })
    error(result, 0)
  end
  return result
end

procedure {
  name = "failover drill",
  {
    "find out which proxy holds the address",
    function()
      before, preferred = vip.holder(), vip.preferred()
      return before.name
    end,
  },
  {
    "see that every proxy is well: nginx, its port, keepalived",
    function()
      for _, host in ipairs(hosts("proxies")) do
        vip.healthy(host)
      end
    end,
  },
  {
    "stop nginx on the holder, and wait until another proxy alone holds the address",
    function()
      return restored(function()
        local _, start = vip.look(before)
        before:systemd({ name = "nginx", state = "stopped" })
        after = vip.wait(function(host) return host.name ~= before.name end, 15)
        local _, now = vip.look(before)
        return string.format("%s holds it after %.1f s", after.name, now - start)
      end)
    end,
  },
  {
    "see that the proxy that took over takes connections at the address",
    function()
      restored(function()
        local port = before.vars:get("proxy_port", 7443)
        before:wait_for({ host = before.vars.vip, port = port, timeout = 5 }, { name = "connect to the address" })
      end)
    end,
  },
  {
    "start nginx again",
    function()
      before:systemd({ name = "nginx", state = "started" })
      vip.healthy(before)
    end,
  },
  {
    "see that the address is where `failback` wants it",
    function()
      if before.vars:get("failback", "manual") == "automatic" then
        vip.wait(function(host) return host.name == preferred.name end, 15)
        return "automatic: " .. preferred.name .. " holds it again"
      end
      local _, start = vip.look(before)
      local now = start
      while now - start < STAYS do
        local holder = vip.holder()
        if holder.name ~= after.name then
          holder:fail("the address went back to " .. holder.name .. " by itself, though `failback` is manual: run playbooks/proxy.lua")
        end
        before:command({ command = "sleep 0.5", reads_only = true })
        _, now = vip.look(before)
      end
      local back = "; playbooks/failback.lua gives it back to " .. preferred.name
      return "manual: it stays on " .. after.name .. (after.name ~= preferred.name and back or "")
    end,
  },
}
