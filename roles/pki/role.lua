-- Issues the certificates that a host needs: step one of document 001. Private keys are made on the host and stay there; the
-- authority's key stays on the controller. Only the service accounts' key pair is the same on all masters, and therefore copied.

-- Returns the first address of a range: what Kubernetes gives its own service. "192.168.0.0/16" -> "192.168.0.1"
local function first_address(range)
  local a, b, c, d, bits = range:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)/(%d+)$")
  assert(a and tonumber(bits) <= 30, "`service_cidr` has to be an IPv4 range such as 192.168.0.0/16, not `" .. range .. "`")
  local address = ((a * 256 + b) * 256 + c) * 256 + d
  local size = 1 << (32 - tonumber(bits))
  local first = math.tointeger(address) // size * size + 1
  return string.format("%d.%d.%d.%d", first >> 24 & 255, first >> 16 & 255, first >> 8 & 255, first & 255)
end

return {
  summary = "certificates for etcd, kube-apiserver, its clients and its administrator",

  params = {
    pki_folder = { type = "string", required = true, doc = "Folder of the certificate authority on the controller; made on first use." },
    pki_names = {
      type = "map",
      default = {},
      doc = "What certificates say of their owner: `country`, `state`, `locality`, `organization`, `unit`, all optional.",
    },
    address = { type = "string", required = true, doc = "Address of this host." },

    etcd = { type = "boolean", default = false, doc = "Whether this host is a member of etcd." },
    etcd_owner = { type = "string", default = "etcd", doc = "User that etcd runs as, made if missing. When empty, owners are left alone." },
    etcd_folder = { type = "string", default = "/etc/etcd/ssl", doc = "Folder of the member's certificate." },

    apiserver = { type = "boolean", default = false, doc = "Whether this host is a master." },
    master_owner = { type = "string", default = "root", doc = "Owner of a master's files. When empty, owners are left alone." },
    ssl_folder = { type = "string", default = "/etc/kubernetes/server/ssl", doc = "Folder of a master's certificates." },
    apiserver_cert = { type = "string", default = "apiserver", doc = "What the apiserver's certificate is called, `NAME.pem`." },
    apiserver_user = { type = "string", default = "k8s-apiserver", doc = "Its common name." },
    apiserver_addresses = { type = "list", default = {}, doc = "Under which addresses apiservers are reached: all masters, the shared one." },
    apiserver_names = { type = "list", default = {}, doc = "Under which further names they are reached." },
    client_cert = {
      type = "string",
      default = "client",
      doc = "What the certificate is called that the apiserver shows to etcd and kubelets. Named as `apiserver_cert`, it is one for both.",
    },
    client_user = { type = "string", default = "k8s-node", doc = "Its common name, unless it is the apiserver's certificate." },
    service_account_key = { type = "string", default = "sa", doc = "What the pair is called that signs service account tokens." },
    aggregation = {
      type = "boolean",
      default = false,
      doc = "Whether there is an aggregation layer: an authority of its own (`front-proxy-ca.pem`) and the client `proxy-client.pem`, CN aggregator.",
    },
    kube_proxy = { type = "boolean", default = false, doc = "Whether a certificate for kube-proxy is issued, too." },
    admin_kubeconfig = { type = "string", default = "/root/.kube/config", doc = "The administrator's kubeconfig." },
    local_endpoint = { type = "string", default = "https://127.0.0.1:6443", doc = "Where programs on a master find the apiserver." },
    service_cidr = { type = "string", default = "192.168.0.0/16", doc = "Addresses of services; the first is the apiserver's." },
    cluster_domain = { type = "string", default = "cluster.local", doc = "Domain of services." },

    lifetime = { type = "string", default = "5y", doc = "How long certificates are valid." },
    renew_before = { type = "string", default = "90d", doc = "How long before their end they are issued again." },
    issued_after = { type = "integer", default = 0, doc = "Seconds since 1970: what was issued before is issued again. For playbooks/renew-certs.lua." },
  },

  run = function(host, p)
    local function owner(name)
      return name ~= "" and name or nil
    end

    -- Issues `NAME.pem` with `NAME-key.pem` in a folder.
    local function issue(folder, name, spec)
      return host:cert({
        authority = spec.authority or p.pki_folder,
        path = folder .. "/" .. name .. ".pem",
        key = folder .. "/" .. name .. "-key.pem",
        common_name = spec.common_name,
        organization = p.pki_names:get("organization"),
        organizational_unit = p.pki_names:get("unit"),
        country = p.pki_names:get("country"),
        state = p.pki_names:get("state"),
        locality = p.pki_names:get("locality"),
        sans = spec.sans,
        usages = spec.usages,
        key_type = "rsa:2048",
        lifetime = p.lifetime,
        renew_before = p.renew_before,
        issued_after = p.issued_after,
        mode = "0644",
        key_mode = "0600",
        owner = spec.owner,
        group = spec.owner,
      }, { name = "certificate " .. name })
    end

    local function folder_with_authority(folder, owner)
      host:file({ path = folder, state = "directory", mode = "0700", owner = owner, group = owner, parents = true })
      host:copy({ content = authority(p.pki_folder), dest = folder .. "/ca.pem", mode = "0644", owner = owner, group = owner })
    end

    if p.etcd then
      local user = owner(p.etcd_owner)
      if user then
        -- The user that Debian's package would make. It has to be there first: its files are not readable by others.
        host:group({ name = user, system = true }, { tags = "system" })
        host:user(
          { name = user, system = true, group = user, home = "/var/lib/etcd", shell = "/usr/sbin/nologin", create_home = false },
          { tags = "system" }
        )
      end
      folder_with_authority(p.etcd_folder, user)
      issue(p.etcd_folder, "etcd", { common_name = "etcd", usages = "both", sans = { "127.0.0.1", p.address, host.name }, owner = user })
    end

    if p.apiserver then
      local folder, user = p.ssl_folder, owner(p.master_owner)
      local same = p.apiserver_cert == p.client_cert
      folder_with_authority(folder, user)
      if not same then
        issue(folder, p.client_cert, { common_name = p.client_user, usages = "client", owner = user })
      end

      local sans = {
        "127.0.0.1", first_address(p.service_cidr),
        "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster", "kubernetes.default.svc." .. p.cluster_domain,
      }
      for _, list in ipairs({ p.apiserver_addresses, p.apiserver_names }) do
        for _, name in ipairs(list) do
          table.insert(sans, name)
        end
      end
      local usages = same and "both" or "server"
      issue(folder, p.apiserver_cert, { common_name = p.apiserver_user, usages = usages, sans = sans, owner = user })

      -- Tokens of service accounts are signed with a pair of their own, which all masters have to share.
      -- While they are rotated there are two pairs (playbooks/rotate-service-account-key.lua).
      local kept_keys = kept(p.pki_folder .. "/service-account-keys.yaml")
      local keys = kept_keys and yaml.decode(kept_keys) or { signer = "service-accounts", verifiers = { "service-accounts" } }
      local pair = key_pair(p.pki_folder .. "/" .. keys.signer, "rsa:2048")
      local public, private = folder .. "/" .. p.service_account_key .. ".pem", folder .. "/" .. p.service_account_key .. "-key.pem"
      if #keys.verifiers == 1 then
        host:copy({ src = pair.public, dest = public, mode = "0644", owner = user, group = user })
      else
        local all = ""
        for _, name in ipairs(keys.verifiers) do
          all = all .. kept(key_pair(p.pki_folder .. "/" .. name, "rsa:2048").public)
        end
        host:copy({ content = all, dest = public, mode = "0644", owner = user, group = user })
      end
      host:copy({ src = pair.private, dest = private, mode = "0600", owner = user, group = user })

      if p.aggregation then
        -- An authority of its own: whoever has a certificate of it may say for whom he asks, and the cluster's clients must not.
        local front = p.pki_folder .. "/front-proxy"
        host:copy({ content = authority(front), dest = folder .. "/front-proxy-ca.pem", mode = "0644", owner = user, group = user })
        issue(folder, "proxy-client", { authority = front, common_name = "aggregator", usages = "client", owner = user })
      end

      -- The administrator: root on a master. The kubeconfig names the files, so that no key is copied into it.
      host:file({ path = p.admin_kubeconfig:match("^(.+)/[^/]+$"), state = "directory", mode = "0700", parents = true })
      local function client(spec)
        for _, name in ipairs({ "pki_folder", "pki_names", "ssl_folder", "master_owner", "lifetime", "renew_before" }) do
          spec[name] = p[name]
        end
        host:role("kube-client", spec)
      end
      client({
        client = "admin",
        user = "admin",
        user_group = "system:masters",
        kubeconfig = p.admin_kubeconfig,
        server = p.local_endpoint,
      })
      if p.kube_proxy then
        client({ client = "kube-proxy", user = "system:kube-proxy" })
      end
    end
  end,
}
