-- Looks for what would make a deployment or an upgrade fail half way, before anything is changed. What is not there yet is no
-- error: it works on empty hosts. It changes nothing, and says the same in a forecast.

-- Returns how many letters have to be changed, added or left out to make one word of another.
local function distance(one, other)
  local row = {}
  for column = 0, #other do
    row[column] = column
  end
  for line = 1, #one do
    local diagonal
    diagonal, row[0] = row[0], line
    for column = 1, #other do
      local cost = one:byte(line) == other:byte(column) and 0 or 1
      diagonal, row[column] = row[column], math.min(row[column] + 1, row[column - 1] + 1, diagonal + cost)
    end
  end
  return row[#other]
end

-- Returns `, did you mean …?` for the word of a set that is nearest, if any is near.
local function nearest(word, set)
  local best, least
  for candidate in pairs(set) do
    local far = distance(word, candidate)
    if far <= 2 + #word // 6 and (not least or far < least) then
      best, least = candidate, far
    end
  end
  return best and " (did you mean `" .. best .. "`?)" or ""
end

local function number(address)
  local a, b, c, d = address:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  return a and ((a * 256 + b) * 256 + c) * 256 + d
end

-- Returns whether an address lies in a range such as 192.168.0.0/16.
local function contains(range, address)
  local base, bits = range:match("^([%d.]+)/(%d+)$")
  local found, first = number(address), base and number(base)
  if not found or not first then
    return false
  end
  local size = 2.0 ^ (32 - tonumber(bits))
  return found // size == first // size
end

local function minor(version)
  return tonumber(version:match("^v?1%.(%d+)"))
end

-- Reads what a program says of its flags and feature gates.
local function known_flags(help)
  local flags, gates = {}, {}
  for name in help:gmatch("\n +%-%-([%w-]+)") do
    flags[name] = true
  end
  for name in help:gmatch("(%w+)=true|false") do
    gates[name] = true
  end
  return flags, gates
end

return {
  summary = "what would fail later, found before anything is changed",

  params = {
    address = { type = "string", required = true, doc = "Address of this host." },
    vip = { type = "string", default = "", doc = "The shared address; none when empty." },
    ports = { type = "map", default = {}, doc = "Programs by the port that they are to listen on here: `{ [\"6443\"] = \"kube-apiserver\" }`." },
    service_cidr = { type = "string", default = "192.168.0.0/16", doc = "Addresses of services." },
    service_node_ports = { type = "string", default = "", doc = "Ports that services may open on nodes; `30000-32767` when empty." },
    reserved_ports = { type = "list", default = {}, items = { type = "integer" }, doc = "Ports of the control plane, which no service should be given." },
    kubernetes_version = { type = "string", default = "", doc = "The release to be installed; nothing is said of releases when empty." },
    archive = { type = "string", default = "", doc = "Its archive on the controller. Examined when this host is to run it." },
    flags = { type = "list", default = {}, items = { type = "string" }, doc = "All flags that kube-apiserver is to be started with." },
    members = { type = "list", default = {}, items = { type = "string" }, doc = "Client addresses of all members of etcd, when this host is one of them." },
    etcd_folder = { type = "string", default = "/etc/etcd/ssl", doc = "Folder of the member's certificate." },
    folders = {
      type = "map",
      default = {},
      doc = "Megabytes that have to be free, by folder: `{ [\"/var/lib/etcd\"] = 512 }`.",
    },
    clock_difference = { type = "integer", default = 30, doc = "Seconds by which the host's clock may differ from the controller's." },
  },

  run = function(host, p)
    local wrong = {}
    local function complain(text)
      table.insert(wrong, text)
    end

    local words, needs = { "sh", "-s", "--" }, {}
    for folder, megabytes in pairs(p.folders) do
      table.insert(words, folder)
      needs[folder] = megabytes
    end
    local seen = host:command({ command = words, stdin = read_file("look.sh"), reads_only = true }, { name = "preflight of " .. host.name, tags = "system" })
    if seen.skipped then
      return
    end
    local here, running, etcd = os.time(), nil, nil
    for line in seen.stdout:gmatch("[^\n]+") do
      local kind, first, second = line:match("^(%w+)\t([^\t]*)\t?([^\t]*)$")
      if kind == "time" then
        local difference = math.abs(here - tonumber(first))
        if difference > p.clock_difference then
          complain("its clock differs from the controller's by " .. difference .. " s: certificates would not be valid yet, or no longer. "
            .. "Have chrony or systemd-timesyncd set both")
        end
      elseif kind == "port" and p.ports:get(first) and second ~= "" and second ~= p.ports:get(first) then
        complain("port " .. first .. " is taken by " .. second .. ", and " .. p.ports:get(first) .. " is to listen on it")
      elseif kind == "running" then
        running = first
      elseif kind == "etcd" then
        etcd = first
      elseif kind == "free" and tonumber(second) < needs[first] then
        complain(first .. " has " .. second .. " MiB free, and " .. string.format("%d", needs[first]) .. " are needed")
      end
    end

    for _, address in ipairs({ p.address, p.vip }) do
      if contains(p.service_cidr, address) then
        complain("`service_cidr` " .. p.service_cidr .. " contains " .. address .. ", an address of a host: it could not be reached any more")
      end
    end
    local low, high = (p.service_node_ports ~= "" and p.service_node_ports or "30000-32767"):match("^(%d+)%-(%d+)$")
    for _, port in ipairs(p.reserved_ports) do
      if low and port >= tonumber(low) and port <= tonumber(high) then
        host:warn("`service_node_ports` " .. p.service_node_ports .. " contains port " .. string.format("%d", port)
          .. " of the control plane: a service that is given it shuts the control plane off on nodes")
      end
    end

    if p.kubernetes_version ~= "" and running and minor(running) and minor(p.kubernetes_version) then
      local step = minor(p.kubernetes_version) - minor(running)
      if step > 1 then
        complain("kube-apiserver " .. running .. " runs, and " .. p.kubernetes_version .. " skips a minor release: go one at a time")
      elseif step < 0 then
        complain("kube-apiserver " .. running .. " runs, and " .. p.kubernetes_version .. " is older: what it has stored may not be readable any more")
      end
    end
    if p.archive ~= "" then
      local try, names = { "sh", "-s", "--", p.archive }, ""
      for _, flag in ipairs(p.flags) do
        table.insert(try, flag)
        names = names .. " " .. flag:match("^[^=]*")
      end
      local said = once("kube-apiserver of " .. p.archive .. " with" .. names, function()
        local program = localhost:command(
          { command = try, stdin = read_file("program.sh"), reads_only = true },
          { name = "what kube-apiserver in " .. p.archive:match("[^/]+$") .. " says of itself" }
        )
        return program.stdout
      end)
      local machine, version, help = said:match("^(%S+)\n([^\n]*)\n?(.*)$")
      if machine ~= "script" and machine ~= host.facts.architecture then
        complain("kube-apiserver in " .. p.archive .. " is for " .. machine .. " processors, and this host has " .. host.facts.architecture)
      end
      if version ~= "" and version ~= "Kubernetes " .. p.kubernetes_version then
        complain("kube-apiserver in " .. p.archive .. " is `" .. version .. "`, and `kubernetes_version` is " .. p.kubernetes_version)
      end
      if help ~= "" then
        local flags, gates = known_flags(help)
        for _, flag in ipairs(p.flags) do
          local name, value = flag:match("^%-%-([%w-]+)=?(.*)$")
          local refused = name and ("\n" .. help):find("\nrefused --" .. name .. "\n", 1, true)
          if refused and not flags[name] then
            complain("kube-apiserver " .. p.kubernetes_version .. " has no flag `--" .. name .. "`" .. nearest(name, flags))
          elseif refused then
            for gate in value:gmatch("(%w+)=") do
              if not gates[gate] then
                complain("kube-apiserver " .. p.kubernetes_version .. " has no feature gate `" .. gate .. "`" .. nearest(gate, gates))
              end
            end
          end
        end
      end
    end

    if etcd == "active" and #p.members > 0 then
      local ask = "etcdctl --endpoints=" .. table.concat(p.members, ",") .. " --cacert=" .. p.etcd_folder .. "/ca.pem --cert=" .. p.etcd_folder
        .. "/etcd.pem --key=" .. p.etcd_folder .. "/etcd-key.pem --command-timeout=5s "
      local state = host:shell(
        { command = ask .. "endpoint health 2>&1; " .. ask .. "alarm list; true", env = { ETCDCTL_API = "3" }, reads_only = true },
        { name = "etcd as " .. host.name .. " sees it" }
      )
      local healthy = select(2, state.stdout:gsub("is healthy", ""))
      if healthy < #p.members then
        host:warn("etcd has " .. healthy .. " healthy members of " .. #p.members .. ": no master that serves is stopped before all are")
      end
      for alarm in state.stdout:gmatch("alarm:(%S+)") do
        complain("etcd has the alarm " .. alarm .. (alarm == "NOSPACE" and ": compact, defragment, then `etcdctl alarm disarm`" or ""))
      end
    end

    if #wrong > 0 then
      host:fail("not fit for what is to be done: " .. table.concat(wrong, "; "))
    end
  end,
}
