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
    apiserver_addresses = { type = "list", default = {}, doc = "Under which addresses apiservers are reached: all masters, the shared one." },
    service_cidr = { type = "string", default = "192.168.0.0/16", doc = "Addresses of services; the first is the apiserver's." },
    cluster_domain = { type = "string", default = "cluster.local", doc = "Domain of services." },

    lifetime = { type = "string", default = "5y", doc = "How long certificates are valid." },
    renew_before = { type = "string", default = "90d", doc = "How long before their end they are issued again." },
  },

  run = function(host, p)
    local function owner(name)
      return name ~= "" and name or nil
    end

    -- Issues `NAME.pem` with `NAME-key.pem` in a folder.
    local function issue(folder, name, spec)
      return host:cert({
        authority = p.pki_folder,
        path = folder .. "/" .. name .. ".pem",
        key = folder .. "/" .. name .. "-key.pem",
        common_name = spec.common_name,
        organization = spec.organization or p.pki_names:get("organization"),
        organizational_unit = p.pki_names:get("unit"),
        country = p.pki_names:get("country"),
        state = p.pki_names:get("state"),
        locality = p.pki_names:get("locality"),
        sans = spec.sans,
        usages = spec.usages,
        key_type = "rsa:2048",
        lifetime = p.lifetime,
        renew_before = p.renew_before,
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
      folder_with_authority(folder, user)
      issue(folder, "client", { common_name = "k8s-node", usages = "client", owner = user })

      local sans = {
        "127.0.0.1", first_address(p.service_cidr),
        "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster", "kubernetes.default.svc." .. p.cluster_domain,
      }
      for _, address in ipairs(p.apiserver_addresses) do
        table.insert(sans, address)
      end
      issue(folder, "apiserver", { common_name = "k8s-apiserver", usages = "server", sans = sans, owner = user })

      -- Tokens of service accounts are signed with a pair of their own, which all masters have to share.
      local pair = key_pair(p.pki_folder .. "/service-accounts", "rsa:2048")
      host:copy({ src = pair.public, dest = folder .. "/sa.pem", mode = "0644", owner = user, group = user })
      host:copy({ src = pair.private, dest = folder .. "/sa-key.pem", mode = "0600", owner = user, group = user })

      -- The administrator: root on a master. The kubeconfig names the files, so that no key is copied into it.
      issue(folder, "admin", { common_name = "admin", organization = "system:masters", usages = "client", owner = user })
      host:file({ path = "/root/.kube", state = "directory", mode = "0700", parents = true })
      host:template({ src = "kubeconfig.j2", dest = "/root/.kube/config", mode = "0600" })
    end
  end,
}
