-- Says how a cluster is, and changes nothing: versions, days that certificates have left, age of the processes, readiness, leaders,
-- etcd, who holds the shared address, whether files that masters share are the same everywhere, whether port 8080 is closed.
--
--   kplay playbooks/verify.lua -i inventory/hdss7.yaml
--   kplay playbooks/verify.lua -i inventory/hdss7.yaml --events state.jsonl
--
-- Prints tables, then what is wrong; the exit code is 2 when anything is. In the events, each host's row is the text of a message
-- of level `debug`, as JSON; what is wrong is an event `failed`, what soon will be a `message` of level `warning`.

local cluster = require "cluster"
local health = require "health"

-- Days before a certificate's end that are too few, and that are few.
local EXPIRES, EXPIRES_SOON = 14, 60
-- An apiserver's certificate for its own loopback address lives in its memory for a year: it has to be restarted before.
local OLD = 300
-- Files that only work when all masters have the same.
local SHARED = {
  ["client-ca-file"] = true, ["requestheader-client-ca-file"] = true, ["service-account-key-file"] = true,
  ["service-account-signing-key-file"] = true, ["encryption-provider-config"] = true, ["audit-policy-file"] = true,
  ["token-auth-file"] = true,
}
local DAY = 86400
-- A leader says every few seconds that it is one, and loses that after 15.
local STALE = 60

local look = read_file("look.sh")
-- What is known of each host by name; of hosts that cannot be reached, nothing.
local state = {}
-- Why clients reach nobody through the shared address, if so.
local unreached

-- Reads the lines of files/look.sh.
local function parse(text)
  local seen = { units = {}, processes = {}, flags = {}, files = {}, certificates = {}, addresses = {}, ports = {} }
  for line in text:gmatch("[^\n]+") do
    local words = {}
    for word in (line .. "\t"):gmatch("([^\t]*)\t") do
      table.insert(words, word)
    end
    local kind, name = words[1], words[2]
    if kind == "unit" then
      seen.units[name] = words[3]
    elseif kind == "process" then
      seen.processes[name] = { days = tonumber(words[4]) // DAY, version = words[5] }
    elseif kind == "flag" then
      seen.flags[name .. " " .. words[3]] = words[4]
    elseif kind == "file" and name == "kube-apiserver" and SHARED[words[3]] then
      seen.files[words[3]] = { path = words[4], digest = words[5] }
    elseif kind == "cert" then
      seen.certificates[name] = tonumber(words[3]) // DAY
    elseif kind == "address" then
      seen.addresses[name] = true
    elseif kind == "port" then
      seen.ports[name] = true
    end
  end
  return seen
end

-- Asks the members of etcd, through the one that is asked.
local function ask_etcd(host, own)
  local folder = host.vars:get("etcd_folder", "/etc/etcd/ssl")
  local ask = "etcdctl --endpoints=https://" .. host.vars.address .. ":2379 --cacert=" .. folder .. "/ca.pem --cert=" .. folder
    .. "/etcd.pem --key=" .. folder .. "/etcd-key.pem --command-timeout=5s "
  local status = host:shell(
    { command = ask .. "endpoint health >&2; " .. ask .. "endpoint status -w json; echo; " .. ask .. "alarm list; true", env = { ETCDCTL_API = "3" }, reads_only = true },
    { name = "etcd of " .. host.name }
  )
  own.etcd = { healthy = status.stderr:find("is healthy") ~= nil, alarms = {} }
  for line in status.stdout:gmatch("[^\n]+") do
    if line:sub(1, 1) == "[" then
      local answer = json.decode(line)[1]
      if answer then
        local member = answer.Status
        own.etcd.version, own.etcd.bytes = member.version, member.dbSize
        own.etcd.leads = member.leader == member.header.member_id
        own.etcd.leader = member.leader
      end
    elseif line:find("alarm:") then
      table.insert(own.etcd.alarms, line:match("alarm:(%S+)"))
    end
  end
end

play {
  name = "look",
  hosts = "all",
  run = function(host)
    local seen = host:command({ command = { "sh", "-s", host.vars:get("ssl_folder", "/etc/kubernetes/server/ssl") }, stdin = look, reads_only = true }, { name = "units, files and addresses" })
    local own = parse(seen.stdout)
    if cluster.is_in(host, "masters") then
      local ready = health.ready(host, health.serves_at(host), { timeout = 5 }, { name = "ready", ignore_errors = true })
      own.ready = not ready.failed
      own.why = ready.failed and ready.error or nil
      if own.ready then
        local leases = host:shell({
          command = "kubectl -n kube-system get leases -o "
            .. [['jsonpath={range .items[*]}{.metadata.name} {.spec.holderIdentity} {.spec.renewTime}{"\n"}{end}' ]]
            .. [[| while read -r name holder renewed; do echo "$name $holder $(($(date +%s) - $(date -d "$renewed" +%s)))"; done]],
          env = { KUBECONFIG = host.vars:get("admin_kubeconfig", "/root/.kube/config") },
          reads_only = true,
        }, { name = "leaders" })
        own.leaders = {}
        for name, holder, age in leases.stdout:gmatch("(kube%-%S+) ([^_%s]+)%S* (%-?%d+)\n") do
          own.leaders[name] = { holder = holder, age = tonumber(age) }
        end
      end
    end
    if cluster.is_in(host, "etcd") then
      ask_etcd(host, own)
    end
    state[host.name] = own
  end,
}

-- Asked on one master that is ready; through a proxy that listens on its host alone, there.
play {
  name = "look through the proxies",
  hosts = "localhost",
  run = function()
    local master
    for _, host in ipairs(hosts("masters")) do
      master = master or state[host.name] and state[host.name].ready and host or nil
    end
    for _, proxy in ipairs(health.proxies()) do
      local own = state[proxy.name]
      local asks = health.listens_alone(proxy) and cluster.is_in(proxy, "masters") and proxy or master
      if asks and own and own.units.nginx == "active" then
        local answer = health.through(proxy, asks, {}, { name = "/readyz through " .. proxy.name, ignore_errors = true })
        own.answers, own.silent = not answer.failed, answer.failed and answer.error or nil
      end
    end
    local shared = master and health.shared_endpoint(master)
    if shared then
      local answer = health.ready(master, shared, { timeout = 5 }, { name = "/readyz through " .. shared, ignore_errors = true })
      unreached = answer.failed and shared .. " does not answer: " .. answer.error or nil
    end
  end,
}

-- Returns rows as lines, in columns.
local function show(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for column, cell in ipairs(row) do
      widths[column] = math.max(widths[column] or 0, utf8.len(cell))
    end
  end
  for _, row in ipairs(rows) do
    local line = ""
    for column, cell in ipairs(row) do
      line = line .. cell .. (column < #row and string.rep(" ", widths[column] - utf8.len(cell) + 2) or "")
    end
    print(line)
  end
end

local function row(...)
  local cells = {}
  for index = 1, select("#", ...) do
    local cell = select(index, ...)
    cells[index] = cell == nil and "-" or tostring(cell)
  end
  return cells
end

-- What is wrong, by host.
local wrong = {}
local function complain(host, text)
  wrong[host.name] = wrong[host.name] or {}
  table.insert(wrong[host.name], text)
end

-- Judges the certificates of a host and returns what the table says of them.
local function certificates(host, own)
  local least, which
  for path, days in pairs(own.certificates) do
    if not least or days < least then
      least, which = days, path
    end
    if days < EXPIRES then
      complain(host, path .. (days < 0 and " has expired" or " expires in " .. days .. " d") .. ": run playbooks/renew-certs.lua")
    elseif days < EXPIRES_SOON then
      host:warn(path .. " expires in " .. days .. " d")
    end
  end
  return least and least .. " d (" .. which:match("[^/]+$") .. ")"
end

-- Returns what most hosts of a list have, by `value`.
local function common(list, value)
  local count, best = {}, nil
  for _, host in ipairs(list) do
    local found = state[host.name] and value(state[host.name])
    if found then
      count[found] = (count[found] or 0) + 1
      if not best or count[found] > count[best] then
        best = found
      end
    end
  end
  return best
end

local function masters()
  local list = hosts("masters")
  local version = common(list, function(own) return own.processes["kube-apiserver"] and own.processes["kube-apiserver"].version end)
  local rows = { row("MASTER", "VERSION", "RUNS FOR", "READY", "FIRST CERTIFICATE TO END", "PORT 8080") }
  for _, host in ipairs(list) do
    local own = state[host.name]
    if own then
      local process = own.processes["kube-apiserver"]
      local open = own.ports["8080"]
      table.insert(rows, row(host.name, process and process.version, process and process.days .. " d", own.ready and "yes" or "NO",
        certificates(host, own), open and "OPEN" or "closed"))
      if not own.ready then
        complain(host, "kube-apiserver is not ready: " .. tostring(own.why))
      end
      for _, name in ipairs({ "kube-controller-manager", "kube-scheduler" }) do
        if own.units[name] and own.units[name] ~= "active" then
          complain(host, name .. " is " .. own.units[name])
        end
      end
      if open then
        complain(host, "port 8080 is open: the apiserver answers everybody there, without asking who it is")
      end
      for name, running in pairs(own.processes) do
        if name:find("^kube%-apiserver") and running.days > OLD then
          host:warn(name .. " runs for " .. running.days .. " d: restart it before a year is over, when its certificate for itself expires")
        end
      end
      if process and process.version ~= version then
        host:warn("runs " .. process.version .. ", others " .. version)
      end
    else
      table.insert(rows, row(host.name, nil, nil, "not reached"))
    end
  end
  show(rows)
end

local function shared_files()
  local rows = { row("SHARED FILE", "SHA-256", "ON") }
  for flag in pairs(SHARED) do
    local usual = common(hosts("masters"), function(own) return own.files[flag] and own.files[flag].digest end)
    local on = {}
    for _, host in ipairs(hosts("masters")) do
      local file = state[host.name] and state[host.name].files[flag]
      if file and file.digest == usual then
        table.insert(on, host.name)
      elseif usual and state[host.name] and state[host.name].processes["kube-apiserver"] then
        complain(host, "--" .. flag .. (file and " " .. file.path .. " differs from the other masters'" or " is not set as on the other masters"))
      end
    end
    if usual then
      table.insert(rows, row(flag, usual:sub(1, 12), table.concat(on, " ")))
    end
  end
  show(rows)
end

local function leaders()
  local found = {}
  for _, host in ipairs(hosts("masters")) do
    for name, leader in pairs(state[host.name] and state[host.name].leaders or {}) do
      found[name] = found[name] or leader
    end
  end
  local rows = { row("LEADER OF", "IS") }
  for _, name in ipairs({ "kube-controller-manager", "kube-scheduler" }) do
    local wanted
    for _, host in ipairs(hosts("masters")) do
      wanted = wanted or state[host.name] and state[host.name].units[name] and host or nil
    end
    if wanted then
      table.insert(rows, row(name, found[name] and found[name].holder))
    end
    if wanted and not found[name] then
      complain(wanted, "nobody leads " .. name)
    elseif wanted and found[name].age > STALE then
      complain(wanted, "nobody leads " .. name .. ": " .. found[name].holder .. " has last said that it does " .. found[name].age .. " s ago")
    end
  end
  if #rows > 1 then
    show(rows)
  end
end

local function etcd()
  local members, leader = hosts("etcd"), nil
  local rows = { row("ETCD", "VERSION", "HEALTHY", "ROLE", "SIZE", "FIRST CERTIFICATE TO END", "ALARMS") }
  leader = common(members, function(own) return own.etcd and own.etcd.leader and string.format("%.0f", own.etcd.leader) end)
  local healthy = 0
  for _, host in ipairs(members) do
    local own = state[host.name]
    if own then
      healthy = healthy + (own.etcd.healthy and 1 or 0)
      local mine = own.etcd.leader and string.format("%.0f", own.etcd.leader)
      table.insert(rows, row(host.name, own.etcd.version, own.etcd.healthy and "yes" or "NO", own.etcd.leads and "leader" or "follower",
        own.etcd.bytes and own.etcd.bytes // 1048576 .. " MiB", certificates(host, own), #own.etcd.alarms > 0 and table.concat(own.etcd.alarms, " ") or "none"))
      if not own.etcd.healthy then
        complain(host, "its member of etcd is not healthy")
      elseif mine ~= leader then
        complain(host, "its member of etcd follows another leader than the others")
      end
      if #own.etcd.alarms > 0 then
        complain(host, "etcd has the alarm " .. table.concat(own.etcd.alarms, ", "))
      end
    else
      table.insert(rows, row(host.name, nil, "not reached"))
    end
  end
  show(rows)
  print("etcd can lose " .. math.max(healthy - (#members // 2 + 1), 0) .. " more of its " .. #members .. " members")
end

local function proxies()
  local list = health.proxies()
  local vip, holders, kept = nil, {}, nil
  local rows = { row("PROXY", "NGINX", "PORT", "APISERVERS ANSWER", "KEEPALIVED", "SHARED ADDRESS") }
  for _, host in ipairs(list) do
    local own = state[host.name]
    vip = host.vars:get("vip")
    if own and (own.units.nginx or own.units.keepalived) then
      local port = string.format("%d", host.vars:get("proxy_port", 7443))
      local holds = vip and own.addresses[vip]
      kept = kept or own.units.keepalived and host or nil
      if holds then
        table.insert(holders, host)
      end
      table.insert(rows, row(host.name, own.units.nginx, own.ports[port] and port .. " open" or port .. " CLOSED",
        own.silent and "NO" or own.answers and "yes", own.units.keepalived,
        holds and "holds " .. vip or "-"))
      for _, unit in ipairs({ "nginx", "keepalived" }) do
        if own.units[unit] and own.units[unit] ~= "active" then
          complain(host, unit .. " is " .. own.units[unit])
        end
      end
      if not own.ports[port] then
        complain(host, "nobody listens on port " .. port)
      elseif own.silent then
        complain(host, "no apiserver answers through it: " .. own.silent)
      end
    elseif not own then
      table.insert(rows, row(host.name, nil, "not reached"))
    end
  end
  if #rows > 1 then
    show(rows)
  end
  if kept and vip and #holders == 0 then
    complain(kept, "no proxy holds " .. vip)
  elseif #holders == 1 and unreached and state[holders[1].name].answers then
    complain(holders[1], unreached)
  end
  for _, host in ipairs(#holders > 1 and holders or {}) do
    complain(host, "holds " .. vip .. ", as others do at the same time")
  end
end

play {
  name = "state",
  hosts = "localhost",
  run = function()
    masters()
    shared_files()
    leaders()
    etcd()
    proxies()
    for _, host in ipairs(hosts("all")) do
      if state[host.name] then
        host:debug(json.encode(state[host.name]))
      end
    end
  end,
}

play {
  name = "verdict",
  hosts = "all",
  run = function(host)
    local complaints = wrong[host.name]
    host:assert({ that = not complaints, message = complaints and table.concat(complaints, "; ") }, { name = "verdict" })
  end,
}
