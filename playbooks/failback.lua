-- Gives the shared address back to the preferred proxy, the one with the highest priority, as document 001 does it: once that one
-- is known to be well, keepalived is restarted on the proxy that holds the address now.
--
--   kplay playbooks/failback.lua -i inventory/hdss7.yaml --check    lists the steps
--   kplay playbooks/failback.lua -i inventory/hdss7.yaml            does them
--
-- Connections through the address are cut, and clients connect again. A pause of up to two seconds is to be expected.

local procedure = require "procedure"
local health = require "health"
local vip = require "vip"

assert(#health.proxies() > 0 and vip.wanted(), "there is no shared address to give back: it is the variable `vip` of the group `proxies`")

local holder, preferred

procedure {
  name = "failback",
  {
    "find out which proxy holds the address",
    function()
      holder, preferred = vip.holder(), vip.preferred()
      if holder.name == preferred.name then
        return holder.name .. ", which is the preferred one: nothing is to be done"
      end
      return holder.name .. "; the preferred one is " .. preferred.name
    end,
  },
  {
    "see that the preferred proxy is well: nginx, its port, keepalived",
    function()
      vip.healthy(preferred)
    end,
  },
  {
    "restart keepalived on the proxy that holds the address",
    function()
      if holder.name ~= preferred.name then
        holder:systemd({ name = "keepalived", state = "restarted" })
      end
    end,
  },
  {
    "wait until the preferred proxy alone holds the address",
    function()
      vip.wait(function(host) return host.name == preferred.name end, 15)
      return preferred.name .. " holds " .. preferred.vars.vip
    end,
  },
}
