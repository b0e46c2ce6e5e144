-- A highly available kube-apiserver on bare metal, as document 001 does it by hand, in its five steps: certificates, binaries,
-- configuration, service, state check. Where kplay does something else than the document stands in DEVIATIONS.md.
--
--   kplay playbooks/apiserver.lua -i inventory/hdss7.yaml --check --diff    says what it would do
--   kplay playbooks/apiserver.lua -i inventory/hdss7.yaml                   does it
--
-- Tasks that need a running system (users, packages, services, the state check) have the tag `system`:
--
--   kplay playbooks/apiserver.lua -i inventory/here.yaml --skip-tags system
--
-- writes the rest into folders of this machine, without root.
--
-- It needs the groups `etcd` and `masters`; what else the inventory may say is shown by inventory/hdss7.yaml.

-- Returns the address of each host of a group.
local function addresses(group)
  local list = {}
  for _, host in ipairs(hosts(group)) do
    table.insert(list, host.vars.address)
  end
  return list
end

-- Returns whether a host is in a group.
local function is_in(host, group)
  for _, name in ipairs(host.groups) do
    if name == group then
      return true
    end
  end
  return false
end

-- Step 1: certificates. (Document 001, 4.2.3)
play {
  name = "certificates",
  hosts = "etcd:masters",
  run = function(host)
    local reached_at = addresses("masters")
    table.insert(reached_at, host.vars.vip)
    for _, address in ipairs(host.vars:get("planned_masters", {})) do
      table.insert(reached_at, address)
    end
    host:role("pki", {
      authority = host.vars.pki_folder,
      names = host.vars:get("pki_names", {}),
      etcd = is_in(host, "etcd"),
      apiserver = is_in(host, "masters"),
      apiserver_addresses = reached_at,
    })
  end,
}

-- Step 2: binaries. (4.2.3, second)
play {
  name = "binaries",
  hosts = "masters",
  run = function(host)
    local built = env("KPLAY_CACHE", "/var/cache/kplay") .. "/kubernetes-server-linux-amd64.tar.gz"
    host:role("kubernetes-binaries", {
      version = host.vars.kubernetes_version,
      archive = host.vars:get("kubernetes_archive", built),
      checksum = host.vars:get("kubernetes_checksum", ""),
    })
  end,
}

-- Gives a host's etcd, which the document takes for granted, some of the role's steps.
local function etcd(host, steps)
  local members = {}
  for _, member in ipairs(hosts("etcd")) do
    table.insert(members, { name = member.name, address = member.vars.address })
  end
  host:role("etcd", { name = host.name, members = members, steps = steps })
end

-- Gives a master some of the steps of role kube-apiserver.
local function apiserver(host, steps)
  local servers = {}
  for _, address in ipairs(addresses("etcd")) do
    table.insert(servers, "https://" .. address .. ":2379")
  end
  host:role("kube-apiserver", {
    apiserver_count = #hosts("masters"),
    etcd_servers = servers,
    local_etcd = is_in(host, "etcd"),
    log_level = host.vars:get("apiserver_log_level", 2),
    target_ram_mb = host.vars:get("apiserver_target_ram_mb", 1024),
    steps = steps,
  })
end

-- Step 3: configuration. (4.2.4) All files come before the first package, so that a forecast can be sure of them.
play {
  name = "configuration",
  hosts = "etcd:masters",
  run = function(host)
    if is_in(host, "etcd") then
      etcd(host, { "configure" })
    end
    if is_in(host, "masters") then
      apiserver(host, { "configure" })
    end
    if is_in(host, "etcd") then
      etcd(host, { "install" })
    end
  end,
}

-- Step 4: services. (4.2.5) Members of etcd that run already restart one at a time, and only if something of theirs has changed.
-- Then those that do not run start together: members of a new cluster wait for each other.
play {
  name = "etcd, one member at a time",
  hosts = "etcd",
  serial = 1,
  any_error_stops = true,
  run = function(host)
    etcd(host, { "restart" })
  end,
}

play {
  name = "etcd",
  hosts = "etcd",
  any_error_stops = true,
  run = function(host)
    etcd(host, { "start" })
  end,
}

-- Step 5 follows step 4 on each master: the next one begins when this one serves.
play {
  name = "kube-apiserver, one master at a time",
  hosts = "masters",
  serial = 1,
  any_error_stops = true,
  run = function(host)
    apiserver(host, { "serve", "check" })
  end,
}
