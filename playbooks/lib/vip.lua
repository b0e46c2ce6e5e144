-- The address that proxies hold in turn: who holds it, who should, and waiting until it has moved.

local cluster = require "cluster"

local vip = {}

-- Who held the address when the run began, by host name, and whether proxies as they are to be would not hear the others.
local holds, deaf = {}, false

-- Returns whether the inventory has such an address.
function vip.wanted()
  return hosts("proxies")[1].vars:get("vip") ~= nil
end

-- Returns whether a proxy held the address when kplay connected to it. A forecast knows that, too.
function vip.held(host)
  for _, addresses in pairs(host.facts.addresses) do
    for _, address in ipairs(addresses) do
      if address == host.vars.vip then
        return true
      end
    end
  end
  return false
end

-- Remembers whether a proxy holds the address, and whether the proxies would stop hearing each other while they are changed one by one.
-- Has to come first in a run: later, forecasts could not tell any more.
function vip.note(host)
  holds[host.name] = vip.held(host)
  deaf = cluster.keepalived(host, { "agrees" }) == false or deaf
end

-- Returns whether a proxy held the address when the run began.
function vip.held_by(host)
  return holds[host.name] == true
end

-- Returns whether some proxy held the address when the run began.
function vip.is_somebodys()
  for _, held in pairs(holds) do
    if held then
      return true
    end
  end
  return false
end

-- Returns whether a proxy has to be silent until the holder has been changed. A proxy that does not understand the holder's
-- announcements, for another password or number of the router, would take the address, too.
function vip.is_silenced(host)
  return deaf and vip.is_somebodys() and not vip.held_by(host)
end

-- Looks whether a proxy holds the address. Returns that, and the time of its clock in seconds; neither when `--skip-tags system`
-- lets nobody look.
function vip.look(host)
  local script = string.format('date +%%s.%%N; ip -o address show to "%s"', host.vars.vip)
  local seen = host:command(
    { command = "sh -s", stdin = script, reads_only = true },
    { name = "who holds " .. host.vars.vip, tags = "system" }
  )
  if seen.skipped then
    return nil
  end
  local time, line = seen.stdout:match("^(%S+)\n(.*)$")
  return line ~= "", tonumber(time)
end

-- Returns the proxies that hold the address.
function vip.holders()
  local holders = {}
  for _, host in ipairs(hosts("proxies")) do
    if vip.look(host) then
      table.insert(holders, host)
    end
  end
  return holders
end

-- Returns the proxy with the highest priority.
function vip.preferred()
  local best
  for _, host in ipairs(hosts("proxies")) do
    if not best or host.vars.priority > best.vars.priority then
      best = host
    end
  end
  return best
end

local function names(list)
  local words = {}
  for _, host in ipairs(list) do
    table.insert(words, host.name)
  end
  return #words > 0 and table.concat(words, " and ") or "nobody"
end

-- Returns the one proxy that holds the address, and fails when there is none or more than one.
function vip.holder()
  local holders = vip.holders()
  if #holders ~= 1 then
    local first = hosts("proxies")[1]
    first:fail(names(holders) .. " holds " .. first.vars.vip .. ", and exactly one proxy should: see `journalctl -u keepalived` on the proxies")
  end
  return holders[1]
end

-- Waits until a proxy for which `wanted` returns true is the only one to hold the address, some times in a row. Returns it, or
-- nil when nobody may look.
function vip.wait(wanted, seconds)
  local patience, calm, holders = hosts("proxies")[1], 0, {}
  local _, now = vip.look(patience)
  if not now then
    return nil
  end
  local deadline = now + seconds
  while now < deadline do
    holders = vip.holders()
    calm = #holders == 1 and wanted(holders[1]) and calm + 1 or 0
    if calm == 5 then
      return holders[1]
    end
    patience:command({ command = "sleep 0.1", reads_only = true })
    _, now = vip.look(patience)
  end
  patience:fail("after " .. seconds .. " s " .. names(holders) .. " holds " .. patience.vars.vip .. ": see `journalctl -u keepalived` on the proxies")
end

-- Fails unless a proxy could take the address over: both services run, and its port is open.
function vip.healthy(host)
  for _, unit in ipairs({ "nginx", "keepalived" }) do
    host:wait_for({ unit = unit, state = "active", timeout = 5 })
  end
  local port = string.format("%d", host.vars:get("proxy_port", 7443))
  local check = host.vars:get("keepalived_folder", "/etc/keepalived") .. "/check_port.sh"
  host:command({ command = { check, port }, reads_only = true }, { name = "port " .. port .. " is open" })
end

return vip
