-- Changes to running masters, one at a time and safe by construction:
--
-- - before a master stops serving, all others are ready and every member of etcd is healthy, so that it can lose one;
-- - the proxies send it no new connections meanwhile;
-- - afterwards it is ready, and so is what clients reach through the shared address, several times in a row;
-- - when anything of that fails, what has been done for this master is undone, on it and at the proxies, and the run stops.
--
-- No master is the first one: those that do not serve come first, for nobody misses them, whoever holds the shared address last.
--
--   local rolling = require "rolling"
--   rolling.ask()
--   rolling.masters({ name = "…", run = function(master) … end, pending = function(master) … end })

local cluster = require "cluster"
local encryption = require "encryption"
local health = require "health"
local vip = require "vip"

local rolling = {}

-- What was seen when the run began, by host name.
local serves, proxies, controls, members = {}, {}, {}, {}

-- Whether any apiserver ran then, whether any member of etcd was healthy, and whether anybody has looked.
local runs, stores, asked = false, false, false

-- Whether a proxy still kept a master out then, for a run that was stopped.
local left_drained = false

-- Looks whether a proxy stands in front of apiservers, keeps one out, and holds the shared address.
local function look_at_proxy(host)
  local nginx = host:command(
    {
      command = { "grep", "-E", "upstream kube-apiserver|^ *server .* down;", host.vars:get("nginx_conf", "/etc/nginx/nginx.conf") },
      reads_only = true,
      ok_codes = { 0, 1, 2 },
    },
    { name = "does it stand in front of apiservers?", tags = "system" }
  )
  local says = nginx.skipped and "" or nginx.stdout
  proxies[host.name] = says:find("upstream kube-apiserver", 1, true) ~= nil
  left_drained = left_drained or proxies[host.name] and says:find(" down;", 1, true) ~= nil
  if vip.wanted() then
    vip.note(host)
  end
end

-- Declares the play that looks what runs and who serves. It has to come first in a run: later, forecasts could not tell any more. A
-- playbook made of several asks once, before all of them.
function rolling.ask()
  if asked then
    return
  end
  asked = true
  play {
    name = "who serves",
    hosts = #health.proxies() > 0 and "etcd:masters:proxies" or "etcd:masters",
    tags = "system",
    any_error_stops = true,
    run = function(host)
      if cluster.is_in(host, "masters") then
        local unit = host:systemd({ name = "kube-apiserver", only_look = true }, { name = "is kube-apiserver active?" })
        if not unit.skipped and unit.state == "active" then
          local ready = health.ready(host, health.serves_at(host), { timeout = 10 }, { name = "is it ready?", ignore_errors = true })
          serves[host.name] = not ready.failed
          runs = true
          encryption.look(host)
        end
        local controller = host:systemd({ name = "kube-controller-manager", only_look = true }, { name = "is there a kube-controller-manager?" })
        controls[host.name] = not controller.skipped and controller.enabled ~= ""
      end
      if cluster.is_in(host, "etcd") then
        local unit = host:systemd({ name = "etcd", only_look = true }, { name = "is etcd active?" })
        members[host.name] = not unit.skipped and unit.state == "active"
        if members[host.name] then
          stores = not health.etcd_member(host, { timeout = 5 }, { name = "is it healthy?", ignore_errors = true }).failed or stores
        end
      end
      if cluster.is_in(host, "proxies") then
        look_at_proxy(host)
      end
    end,
  }
end

-- Returns whether this run has asked who serves.
function rolling.has_asked()
  return asked
end

-- Returns whether a master served when the run began.
function rolling.serves(master)
  return serves[master.name] == true
end

-- Returns whether there is a control plane already: an apiserver runs. What is changed then is changed on one master at a time, its
-- files included.
function rolling.running()
  return runs
end

-- Returns whether a host ran a member of etcd when the run began that others have to stand in for while it stops. Where no member is
-- healthy, as when all certificates have expired, none can, and they start anew together.
function rolling.is_member(host)
  return stores and members[host.name] == true
end

-- Returns whether a master had controllers when the run began.
function rolling.has_controllers(master)
  return controls[master.name] == true
end

-- Returns whether any master had controllers when the run began.
function rolling.has_any_controllers()
  for _, here in pairs(controls) do
    if here then
      return true
    end
  end
  return false
end

-- Gives a master some steps of its controllers, where it has any.
function rolling.controllers(master, steps)
  if controls[master.name] then
    cluster.controllers(master, steps)
  end
end

-- Puts hosts in order: those that do not serve, those that do, the one that holds the shared address.
function rolling.order(list)
  local function rank(host)
    return vip.held_by(host) and 3 or serves[host.name] and 2 or 1
  end
  local ordered = {}
  for wanted = 1, 3 do
    for _, host in ipairs(list) do
      if rank(host) == wanted then
        table.insert(ordered, host)
      end
    end
  end
  return ordered
end

-- Tells the proxies that a master gets no new connections, or, without one, that all do. Nobody could stand in for an only master.
function rolling.drain(master)
  if master and #hosts("masters") == 1 then
    return
  end
  for _, proxy in ipairs(health.proxies()) do
    -- `--limit` keeps proxies out of what was looked at first, and not out of this.
    if proxies[proxy.name] == nil then
      look_at_proxy(proxy)
    end
    if proxies[proxy.name] then
      cluster.proxy(proxy, { "configure", "serve" }, master)
    end
  end
end

-- Waits until all other masters serve again that served when the run began. Where a unit file says `Requires=etcd.service`, as that
-- of document 001 does, an apiserver restarts along with its member of etcd: this comes before a restart of either.
function rolling.others_serve(host)
  for _, other in ipairs(hosts("masters")) do
    if other.name ~= host.name and serves[other.name] then
      health.ready(other, health.serves_at(other), {}, { name = other.name .. " is ready, so that " .. host.name .. " may stop", tags = "system" })
    end
  end
end

-- Waits until all other members of etcd are healthy: it stores nothing any more once it has lost more than its smaller half.
function rolling.other_members_are_healthy(host)
  for _, other in ipairs(hosts("etcd")) do
    if other.name ~= host.name then
      health.etcd_member(host, { address = "https://" .. other.vars.address .. ":2379" },
        { name = "member " .. other.name .. " is healthy, so that " .. host.name .. " may stop", tags = "system" })
    end
  end
end

-- Restarts a member of etcd whose files have changed. An apiserver beside it may restart along with it, and is drained for that long:
-- a proxy that has seen it fail would leave it out for a while, and have nobody to turn to when the next one restarts.
function rolling.restart_etcd(host)
  rolling.others_serve(host)
  local pending = cluster.etcd(host, { "pending" })
  local along = rolling.serves(host) and pending
  -- A forecast cannot ask with a certificate that would be a new one.
  if pending and not check_mode then
    rolling.other_members_are_healthy(host)
  end
  if along then
    rolling.drain(host)
  end
  cluster.etcd(host, { "restart" })
  if along then
    rolling.is_back(host)
    rolling.drain()
  end
end

-- Waits until the cluster can do without this master.
function rolling.can_do_without(master)
  local asked
  for _, other in ipairs(hosts("masters")) do
    if other.name ~= master.name then
      asked = asked or other
      health.ready(other, health.serves_at(other), {}, { name = other.name .. " is ready, so that " .. master.name .. " may stop", tags = "system" })
    end
  end
  health.etcd(asked or master, {}, { name = "etcd can lose a member, so that " .. master.name .. " may stop", tags = "system" })
end

-- Waits until a master serves.
function rolling.is_back(master)
  health.ready(master, health.serves_at(master), { timeout = 120, consecutive = 3 }, { name = master.name .. " is ready, three times in a row", tags = "system" })
end

-- Waits until clients are served through the shared address, or, where there is none, through each proxy.
local function is_served_through_proxies(master)
  local shared = health.shared_endpoint(master)
  if shared and vip.is_somebodys() then
    health.ready(master, shared, { timeout = 60, consecutive = 3, interval = 0.5 }, { name = shared .. " is ready, three times in a row", tags = "system" })
    return
  end
  for _, proxy in ipairs(vip.wanted() and {} or health.proxies()) do
    local asks = health.listens_alone(proxy) and proxy or master
    if proxies[proxy.name] and cluster.is_in(asks, "masters") then
      health.through(proxy, asks, {}, { name = "/readyz through " .. proxy.name, when = not check_mode, retries = 10, delay = 1, tags = "system" })
    end
  end
end

-- Declares a play that changes masters one at a time.
--   run(master)      changes it and sees to it that it serves again
--   pending(master)  whether that stops a running apiserver; asked after `prepare`; without it, always
--   prepare(master)  what is done to it before, while it goes on serving
--   vars             variables of the play
--   when()           whether there is anything to do at all
function rolling.masters(spec)
  play {
    name = spec.name,
    hosts = "masters",
    order = rolling.order,
    serial = 1,
    any_error_stops = true,
    undo_on_failure = true,
    vars = spec.vars,
    run = function(master)
      if spec.when and not spec.when() then
        return
      end
      if spec.prepare then
        spec.prepare(master)
      end
      if not rolling.serves(master) or spec.pending and not spec.pending(master) then
        local result = spec.run(master)
        if left_drained then
          rolling.drain()
        end
        return result
      end
      rolling.can_do_without(master)
      rolling.drain(master)
      spec.run(master)
      rolling.is_back(master)
      rolling.drain()
      is_served_through_proxies(master)
    end,
  }
end

-- Declares such a play for what apiservers alone are configured with: each stops only where that has changed.
--   prepare(master), vars, when()  as above
--   run(master)                    what follows when it serves again
function rolling.apiservers(spec)
  local further = spec.run
  spec.pending = function(master)
    return cluster.apiserver(master, { "pending" })
  end
  spec.run = function(master)
    cluster.apiserver(master, { "serve", "check" })
    if further then
      further(master)
    end
  end
  rolling.masters(spec)
end

-- Declares a play that changes members of etcd that are no masters, one at a time; masters have theirs changed along with them.
--   run(member)  changes it and sees to it that it is healthy again
function rolling.members(spec)
  play {
    name = spec.name,
    hosts = "etcd:!masters",
    serial = 1,
    any_error_stops = true,
    undo_on_failure = true,
    vars = spec.vars,
    run = function(member)
      for _, master in ipairs(hosts("masters")) do
        if serves[master.name] then
          rolling.can_do_without(member)
          break
        end
      end
      spec.run(member)
    end,
  }
end

return rolling
