-- A highly available kube-apiserver on bare metal, as document 001 does it by hand, in its five steps: certificates, binaries,
-- configuration, service, state check. Where kplay does something else than the document stands in DEVIATIONS.md.
--
--   kplay playbooks/apiserver.lua -i inventory/hdss7.yaml --check --diff    says what it would do
--   kplay playbooks/apiserver.lua -i inventory/hdss7.yaml                   does it
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

-- Returns a set: is this host in that group?
local function is_in(host, group)
  for _, name in ipairs(host.groups) do
    if name == group then
      return true
    end
  end
  return false
end

local function etcd_members()
  local members = {}
  for _, host in ipairs(hosts("etcd")) do
    table.insert(members, { name = host.name, address = host.vars.address })
  end
  return members
end

-- Step 1: certificates. (Document 001, 4.2.3)
play {
  name = "certificates",
  hosts = "etcd:masters",
  become = true,
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

-- What the document takes for granted: an etcd cluster with TLS. Members of a new cluster wait for each other, so they start
-- together; a member that runs already is left alone here and restarted, if it has to be, in the next play.
play {
  name = "etcd",
  hosts = "etcd",
  become = true,
  any_error_stops = true,
  run = function(host)
    host:role("etcd", { name = host.name, members = etcd_members(), restart = false })
  end,
}

play {
  name = "etcd, one member at a time",
  hosts = "etcd",
  serial = 1,
  become = true,
  any_error_stops = true,
  run = function(host)
    host:role("etcd", { name = host.name, members = etcd_members() })
  end,
}

-- Step 2: binaries. (4.2.3, second)
play {
  name = "binaries",
  hosts = "masters",
  become = true,
  run = function(host)
    local built = env("KPLAY_CACHE", "/var/cache/kplay") .. "/kubernetes-server-linux-amd64.tar.gz"
    host:role("kubernetes-binaries", {
      version = host.vars.kubernetes_version,
      archive = host.vars:get("kubernetes_archive", built),
      checksum = host.vars:get("kubernetes_checksum", ""),
    })
  end,
}

-- Steps 3 to 5: configuration, service, state check. (4.2.4, 4.2.5) One master at a time: the next one begins when this one serves.
play {
  name = "kube-apiserver",
  hosts = "masters",
  serial = 1,
  become = true,
  any_error_stops = true,
  run = function(host)
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
    })
  end,
}
