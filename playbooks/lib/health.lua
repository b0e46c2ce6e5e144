-- Questions about the health of a cluster, asked from a host of it. None changes anything.

local cluster = require "cluster"

local health = {}

-- Returns the files by which a master shows who it is: authority, certificate, key.
function health.credentials(master)
  local folder = master.vars:get("ssl_folder", "/etc/kubernetes/server/ssl")
  local name = master.vars:get("client_cert", "client")
  return { ca = folder .. "/ca.pem", cert = folder .. "/" .. name .. ".pem", key = folder .. "/" .. name .. "-key.pem" }
end

-- Returns where a master serves: `https://10.4.7.21:6443`.
function health.serves_at(master)
  return "https://" .. cluster.reached_as(master) .. ":" .. string.format("%d", master.vars:get("secure_port", 6443))
end

-- Returns where clients reach whichever master serves, or nil where nothing stands in front of them.
function health.shared_endpoint(host)
  local vip = host.vars:get("vip")
  return vip and "https://" .. vip .. ":" .. string.format("%d", host.vars:get("proxy_port", 7443))
end

-- Waits on a master until an address answers `/readyz`, some times in a row. Returns the result.
function health.ready(master, address, how, options)
  how = how or {}
  local seen_with = health.credentials(master)
  return master:wait_for({
    url = address .. "/readyz",
    ca = seen_with.ca,
    cert = seen_with.cert,
    key = seen_with.key,
    timeout = how.timeout or 60,
    consecutive = how.consecutive or 1,
    interval = how.interval or 1,
  }, options)
end

-- Returns whether a proxy is for programs on its own host alone.
function health.listens_alone(proxy)
  return proxy.vars:get("proxy_address", ""):match("^127%.") ~= nil
end

-- Asks on a master, while its apiserver runs, for `/readyz` through one proxy. Returns the result.
function health.through(proxy, master, how, options)
  local address = health.listens_alone(proxy) and proxy.vars.proxy_address or proxy.vars.address
  return master:command({
    command = {
      "kubectl", "--server=https://" .. address .. ":" .. string.format("%d", proxy.vars:get("proxy_port", 7443)),
      "--tls-server-name=" .. cluster.reached_as(master), "--request-timeout=5s", "get", "--raw=/readyz",
    },
    env = { KUBECONFIG = master.vars:get("admin_kubeconfig", "/root/.kube/config") },
    onlyif = how.onlyif,
    reads_only = true,
  }, options)
end

-- Waits on a master until every member of etcd is healthy, which says that the cluster can lose one.
function health.etcd(master, how, options)
  how = how or {}
  local seen_with = health.credentials(master)
  local results = {}
  for _, endpoint in ipairs(cluster.etcd_endpoints()) do
    table.insert(results, master:wait_for({
      url = endpoint .. "/health",
      body = '"health": *"true"',
      ca = seen_with.ca,
      cert = seen_with.cert,
      key = seen_with.key,
      timeout = how.timeout or 60,
    }, options))
  end
  return results
end

-- Waits on a member of etcd until a member is healthy: itself, or the one at an address. Returns the result.
function health.etcd_member(member, how, options)
  local folder = member.vars:get("etcd_folder", "/etc/etcd/ssl")
  return member:wait_for({
    url = (how.address or "https://" .. member.vars.address .. ":2379") .. "/health",
    body = '"health": *"true"',
    ca = folder .. "/ca.pem",
    cert = folder .. "/etcd.pem",
    key = folder .. "/etcd-key.pem",
    timeout = how.timeout or 60,
  }, options)
end

-- Waits on a member of etcd until all members are healthy that have a vote, but for the one with a peer address.
function health.etcd_members(member, members, but)
  for address, known in pairs(members) do
    if known.started and not known.learner and address ~= but then
      health.etcd_member(member, { address = address:gsub(":2380$", ":2379") }, { name = known.name .. " is healthy" })
    end
  end
end

health.proxies = cluster.proxies

return health
