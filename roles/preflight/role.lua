-- Looks for what would make a deployment or an upgrade fail half way, before anything is changed. What is not there yet is no
-- error: it works on empty hosts. It changes nothing, and says the same in a forecast.

-- Programs of a release whose flags are tried. The first one is in every release.
local PROGRAMS = { "kube-apiserver", "kube-controller-manager", "kube-scheduler" }

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

-- Returns N of a release such as v1.N.2.
local function minor(version)
  return tonumber(version:match("^v?1%.(%d+)"))
end

-- Returns a whole number as people write it.
local function whole(number)
  return string.format("%d", number)
end

-- Returns what it is called in a list of processes, which keeps 15 characters of a name.
local function process(program)
  return program:sub(1, 15)
end

-- Reads lines of fields separated by tabs: calls `take` with the fields of each. Returns what comes behind the line `help`.
local function facts(text, take)
  local lines, help = (text .. "\nhelp\n"):match("^(.-)\nhelp\n(.*)$")
  for line in lines:gmatch("[^\n]+") do
    take(line:match("^([^\t]*)\t?([^\t]*)\t?(.*)$"))
  end
  return help
end

-- Compares what a program of the release says of itself and of its flags with what is wanted. `where` names it.
local function examine_program(program, said, where, host, p, complain)
  -- All programs of a release are for the same processors, and of the same version.
  local refused, first_of_all = {}, program == PROGRAMS[1]
  local help = "\n" .. facts(said, function(kind, first, second)
    if kind == "checksum" and first ~= p.checksum then
      complain(p.archive .. " has the checksum " .. first .. ", and `kubernetes_checksum` is " .. p.checksum
        .. ": it is another release, or was damaged on its way; fetch it anew, or correct `kubernetes_checksum`")
    elseif kind == "machine" and first_of_all and first ~= "script" and first ~= host.facts.architecture then
      complain(where .. " is for " .. first .. " processors, and this host has " .. host.facts.architecture .. ": take the release for these")
    elseif kind == "version" and first_of_all and first ~= "Kubernetes " .. p.kubernetes_version then
      complain(where .. " is `" .. first .. "`, and `kubernetes_version` is " .. p.kubernetes_version .. ": correct one of `kubernetes_archive` and `kubernetes_version`")
    elseif kind == "refused" then
      table.insert(refused, { flag = first, reason = second })
    end
  end)
  local flags, gates = {}, {}
  for name in help:gmatch("\n +%-%-([%w-]+)") do
    flags[name] = true
  end
  for name in help:gmatch("(%w+)=true|false") do
    gates[name] = true
  end
  for _, one in ipairs(refused) do
    local name, value = one.flag:match("^%-%-([%w-]+)=?(.*)$")
    local gate = name == "feature-gates" and value:match("^([^=]+)=")
    if one.reason:find("^unknown") then
      complain(program .. " " .. p.kubernetes_version .. " has no flag `--" .. name .. "`" .. nearest(name, flags) .. ": correct it in the inventory")
    elseif gate and one.reason:find("unrecognized feature gate", 1, true) then
      complain(program .. " " .. p.kubernetes_version .. " has no feature gate `" .. gate .. "`" .. nearest(gate, gates) .. ": correct it in the inventory")
    else
      complain(program .. " " .. p.kubernetes_version .. " refuses `" .. one.flag .. "`: " .. one.reason)
    end
  end
end

-- The same for all programs that were asked. `where(program)` names one.
local function examine_release(said, where, host, p, complain)
  local archive, program, lines = {}, nil, {}
  local function examine()
    if program then
      -- What is wrong with the archive is told once, along with its first program.
      local about = table.concat(archive, "\n") .. "\n" .. table.concat(lines, "\n")
      examine_program(program, about, where(program), host, p, complain)
      archive, lines = {}, {}
    end
  end
  for line in said:gmatch("[^\n]+") do
    local another = line:match("^program\t(.*)$")
    if another then
      examine()
      program = another
    else
      table.insert(program and lines or archive, line)
    end
  end
  examine()
end

-- Compares the release with the one that runs.
local function examine_step(running, p, complain)
  local from, to = minor(running), minor(p.kubernetes_version)
  if not from or not to then
    return
  end
  if to - from > 1 then
    complain("kube-apiserver " .. running .. " runs, and " .. p.kubernetes_version .. " skips a minor release: go one at a time, v1." .. whole(from + 1) .. " first")
  elseif to < from then
    complain("kube-apiserver " .. running .. " runs, and " .. p.kubernetes_version
      .. " is older: what has been stored may not be readable any more; give `kubernetes_version` " .. running .. " or newer")
  end
end

-- Asks a member of etcd for alarms, and for members that are not healthy.
local function examine_etcd(host, p, complain)
  local ask = "etcdctl --endpoints=" .. table.concat(p.members, ",") .. " --cacert=" .. p.etcd_folder .. "/ca.pem --cert=" .. p.etcd_folder
    .. "/etcd.pem --key=" .. p.etcd_folder .. "/etcd-key.pem --command-timeout=5s "
  local state = host:shell(
    { command = ask .. "endpoint health 2>&1; " .. ask .. "alarm list; true", env = { ETCDCTL_API = "3" }, reads_only = true },
    { name = "etcd as " .. host.name .. " sees it", tags = "system" }
  )
  local ill = {}
  for _, member in ipairs(p.members) do
    if not state.stdout:find(member .. " is healthy", 1, true) then
      table.insert(ill, member)
    end
  end
  if #ill > 0 then
    local healthy, quorum = #p.members - #ill, #p.members // 2 + 1
    local margin = healthy < quorum and "it has lost its quorum, and stores nothing"
      or healthy == quorum and "it can lose no other member"
      or "it can lose " .. whole(healthy - quorum) .. " more"
    once("etcd", function()
      host:warn("etcd has " .. whole(healthy) .. " healthy members of " .. whole(#p.members) .. ", so that " .. margin .. ": see `journalctl -u etcd` at "
        .. table.concat(ill, ", ") .. ". No master that serves is stopped before all are healthy")
    end)
  end
  for alarm in state.stdout:gmatch("alarm:(%S+)") do
    complain("etcd has the alarm " .. alarm
      .. (alarm == "NOSPACE" and ": compact, defragment, then `etcdctl alarm disarm`" or ": see `etcdctl alarm list`, and replace the member (playbooks/scale.lua)"))
  end
end

-- Looks who else is on the link of a proxy whose keepalived does not run yet.
local function examine_link(host, p, complain)
  local words = { "sh", "-s", "--", p.vip, p.address, p.interface, string.format("%.1f", p.advert_int + 0.3) }
  for _, proxy in ipairs(p.proxies) do
    table.insert(words, proxy)
  end
  local seen = host:command(
    {
      command = words,
      stdin = read_file("link.sh"),
      reads_only = true,
    },
    { name = "who else is on the link of " .. host.name, tags = "system" }
  )
  facts(seen.stdout, function(kind, first, second)
    local ours = false
    for _, proxy in ipairs(p.proxies) do
      ours = ours or proxy == second
    end
    if kind == "router" and tonumber(first) == p.virtual_router_id and not ours then
      complain("`virtual_router_id` " .. first .. " is used on its link by " .. second .. ", which is none of the proxies: choose another one, 1 to 255")
    elseif kind == "owner" then
      complain("`vip` " .. p.vip .. " is used by a machine that is none of the proxies, " .. first .. ": choose another address, or free this one")
    elseif kind == "nolink" then
      complain("there is no network interface `" .. first .. "` on this host: correct `interface` in the inventory")
    elseif kind == "blind" then
      host:warn("nobody has looked whether `vip` and `virtual_router_id` are free, for want of the program `" .. first .. "` on this host")
    end
  end)
end

return {
  summary = "what would fail later, found before anything is changed",

  params = {
    address = { type = "string", required = true, doc = "Address of this host." },
    ports = { type = "map", default = {}, doc = "Programs by the port that they are to listen on here: `{ [\"6443\"] = \"kube-apiserver\" }`." },
    folders = {
      type = "map",
      default = {},
      doc = "Megabytes that have to be free, by folder: `{ [\"/var/lib/etcd\"] = 512 }`.",
    },
    clock_difference = { type = "integer", default = 30, doc = "Seconds by which the host's clock may differ from the controller's." },

    -- Ranges
    service_cidr = { type = "string", default = "192.168.0.0/16", doc = "Addresses of services." },
    service_node_ports = { type = "string", default = "", doc = "Ports that services may open on nodes; `30000-32767` when empty." },
    reserved_ports = { type = "list", default = {}, items = { type = "integer" }, doc = "Ports of the control plane, which no service should be given." },

    -- The release, when this host is to run it
    kubernetes_version = { type = "string", default = "", doc = "The release to be installed; nothing is said of releases when empty." },
    archive = { type = "string", default = "", doc = "Its archive on the controller. It is examined when the host does not have the release yet." },
    checksum = { type = "string", default = "", doc = "What the archive must be: `sha512:…` or `sha256:…`; not compared when empty." },
    release_link = { type = "string", default = "/usr/local/kubernetes-server", doc = "Where the release will lie, with its version behind the name." },
    flags = {
      type = "map",
      default = { ["kube-apiserver"] = {} },
      doc = "All flags that programs of it are to be started with: `{ [\"kube-apiserver\"] = { \"--v=2\" } }`. One that the release does not have is left out.",
    },

    -- etcd, when this host is a member
    members = { type = "list", default = {}, items = { type = "string" }, doc = "Client addresses of all members of etcd, when this host is one of them." },
    etcd_folder = { type = "string", default = "/etc/etcd/ssl", doc = "Folder of the member's certificate." },

    -- The shared address
    vip = { type = "string", default = "", doc = "The shared address; none when empty." },
    proxies = { type = "list", default = {}, items = { type = "string" }, doc = "Addresses of all proxies, when this host is one of them." },
    interface = { type = "string", default = "", doc = "Network interface of the proxies." },
    virtual_router_id = { type = "integer", default = 0, doc = "Number of their virtual router." },
    advert_int = { type = "integer", default = 1, doc = "Seconds between announcements of virtual routers." },
  },

  run = function(host, p)
    local wrong = {}
    local function complain(text)
      table.insert(wrong, text)
    end

    if not p.address:match("^%d+%.%d+%.%d+%.%d+$") and not p.address:find(":", 1, true) then
      complain("`address` is " .. p.address .. ", which is no IP address: etcd and the proxies listen on it. Give the address there, "
        .. "and the name as `reach_by_name: true` has it")
    end
    for _, address in ipairs({ p.address, p.vip }) do
      if contains(p.service_cidr, address) then
        complain("`service_cidr` " .. p.service_cidr .. " contains " .. address .. ", an address of a host: it could not be reached any more; choose another range")
      end
    end
    local low, high = (p.service_node_ports ~= "" and p.service_node_ports or "30000-32767"):match("^(%d+)%-(%d+)$")
    for _, port in ipairs(p.reserved_ports) do
      if low and port >= tonumber(low) and port <= tonumber(high) then
        once("port " .. whole(port), function()
          host:warn("`service_node_ports` " .. low .. "-" .. high .. " contains port " .. whole(port)
            .. " of the control plane: a service that is given it shuts the control plane off on nodes; choose a range without it")
        end)
      end
    end

    local words, needs = { "sh", "-s", "--", "" }, {}
    if p.kubernetes_version ~= "" then
      words[4] = p.release_link .. "-" .. p.kubernetes_version .. "/server/bin/kube-apiserver"
    end
    for folder, megabytes in pairs(p.folders) do
      table.insert(words, folder)
      needs[folder] = megabytes
    end
    local seen = host:command({ command = words, stdin = read_file("look.sh"), reads_only = true }, { name = "preflight of " .. host.name, tags = "system" })
    local looked = not seen.skipped and seen.stdout ~= ""
    local here, running, release, units = os.time(), nil, nil, {}
    facts(looked and seen.stdout or "", function(kind, first, second)
      if kind == "time" then
        local difference = math.abs(here - tonumber(first))
        if difference > p.clock_difference then
          complain("its clock differs from the controller's by " .. whole(difference) .. " s: certificates would not be valid yet, or no longer. "
            .. "Have chrony or systemd-timesyncd set both")
        end
      elseif kind == "port" and p.ports:get(first) and second ~= "" and second ~= process(p.ports:get(first)) then
        complain("port " .. first .. " is taken by " .. second .. ", and " .. p.ports:get(first) .. " is to listen on it: stop " .. second .. ", or choose another port")
      elseif kind == "blind" then
        host:warn("nobody has looked whether ports are free, for want of the program `" .. first .. "` on this host")
      elseif kind == "running" then
        running = first
      elseif kind == "release" then
        release = first
      elseif kind == "unit" then
        units[first] = second
      elseif kind == "free" and tonumber(second) < needs[first] then
        complain(first .. " has " .. second .. " MiB free, and " .. whole(needs[first]) .. " are needed: make room there")
      end
    end)

    if looked and p.kubernetes_version ~= "" then
      if running then
        examine_step(running, p, complain)
      end
      local asked = {}
      for _, program in ipairs(PROGRAMS) do
        local flags = p.flags:get(program)
        if flags then
          table.insert(asked, "program:" .. program)
          table.move(flags, 1, #flags, #asked + 1, asked)
        end
      end
      local function with(kind, place, checksum)
        return {
          command = table.move(asked, 1, #asked, 7, { "sh", "-s", "--", kind, place, checksum }),
          stdin = read_file("program.sh"),
          reads_only = true,
        }
      end
      if release then
        local folder = release:match("^(.*)/")
        local said = host:command(with("folder", folder, ""), { name = "what programs in " .. folder .. " say of themselves and their flags", tags = "system" })
        examine_release(said.stdout, function(program)
          return folder .. "/" .. program
        end, host, p, complain)
      elseif p.archive:find("^%a+://") then
        host:warn("nobody has looked into " .. p.archive .. ", which is fetched when it is unpacked: its flags are compared from the next run on")
      elseif p.archive ~= "" then
        local ask = with("archive", find_file(p.archive), p.checksum)
        local said = once(table.concat(ask.command, " "), function()
          return localhost:command(ask, { name = "what programs in " .. p.archive:match("[^/]+$") .. " say of themselves and their flags" }).stdout
        end)
        examine_release(said, function(program)
          return program .. " in " .. p.archive
        end, host, p, complain)
      end
    end
    if units.etcd == "active" and #p.members > 0 then
      examine_etcd(host, p, complain)
    end
    if looked and p.vip ~= "" and #p.proxies > 0 and units.keepalived ~= "active" then
      examine_link(host, p, complain)
    end

    if #wrong > 0 then
      host:fail("not fit for what is to be done: " .. table.concat(wrong, "; "))
    end
  end,
}
