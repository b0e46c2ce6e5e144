-- Looks on all machines, and into the release that is to be installed, for what would fail half way. Changes nothing. site.lua,
-- apiserver.lua, proxy.lua and upgrade.lua begin with it; scale.lua begins with a part of it (lib/fit.lua).
--
--   kplay playbooks/preflight.lua -i inventory/hdss7.yaml

local cluster = require "cluster"
local fit = require "fit"
local health = require "health"
local rolling = require "rolling"

rolling.ask()

fit.all(#health.proxies() > 0 and "etcd:masters:proxies" or "etcd:masters", function(host)
  local look = fit.machine(host)
  if cluster.is_in(host, "etcd") then
    look.members = cluster.etcd_endpoints()
  end
  if cluster.is_in(host, "proxies") then
    -- Once there is a control plane, proxy.lua looks by itself, before it changes anything.
    look.proxies = not rolling.running() and cluster.addresses("proxies") or {}
  end
  return look
end)
