-- A member of an etcd cluster that speaks TLS only. Everything is configured before the package is installed, and the package
-- starts nothing: a member that started by itself would be a cluster of its own.

return {
  summary = "a member of an etcd cluster, with TLS towards clients and the other members",

  params = {
    name = { type = "string", required = true, doc = "Name of this member." },
    address = { type = "string", required = true, doc = "Its address." },
    members = { type = "list", required = true, doc = "All members: `{ { name = \"hdss7-12\", address = \"10.4.7.12\" }, … }`." },
    token = { type = "string", default = "etcd-cluster", doc = "Sets this cluster apart from others at its first start." },
    cluster_state = { type = "string", default = "new", doc = "`new`, or `existing` for a member that joins." },
    steps = {
      type = "list",
      default = { "configure", "install", "restart", "start" },
      items = { type = "string", choices = { "configure", "install", "pending", "restart", "start" } },
      doc = "What is done: `configure` writes files, `install` installs the package, `restart` restarts a running member whose files "
        .. "have changed, `start` starts one that does not run; `pending`, by itself, returns whether `restart` would. "
        .. "Members of a new cluster start together, those of an old one restart "
        .. "one at a time: give the steps to several plays.",
    },
    etcd_owner = { type = "string", default = "etcd", doc = "User that it runs as; role `pki` makes it. When empty, owners are left alone." },
    etcd_conf_folder = { type = "string", default = "/etc/etcd", doc = "Folder of the configuration." },
    etcd_folder = { type = "string", default = "/etc/etcd/ssl", doc = "Folder of the certificates." },
    etcd_data_folder = { type = "string", default = "/var/lib/etcd", doc = "Folder of the data." },
    timeout = { type = "integer", default = 180, doc = "Seconds within which the member has to be healthy." },
  },

  run = function(host, p)
    local steps = {}
    for _, step in ipairs(p.steps) do
      steps[step] = true
    end
    local owner = p.etcd_owner ~= "" and p.etcd_owner or nil
    local config = p.etcd_conf_folder .. "/etcd.yaml"
    local watched = { config, p.etcd_folder }
    local health = {
      url = "https://" .. p.address .. ":2379/health",
      ca = p.etcd_folder .. "/ca.pem",
      cert = p.etcd_folder .. "/etcd.pem",
      key = p.etcd_folder .. "/etcd-key.pem",
      timeout = p.timeout,
    }

    if steps.configure then
      host:file({ path = p.etcd_conf_folder, state = "directory", mode = "0755", parents = true })
      host:file({ path = p.etcd_data_folder, state = "directory", mode = "0700", owner = owner, group = owner, parents = true })
      host:template({ src = "etcd.yaml.j2", dest = config, mode = "0644" })
      host:template({ src = "etcd.service.j2", dest = "/etc/systemd/system/etcd.service", mode = "0644", parents = true })
    end
    if steps.install then
      host:package({ name = { "etcd-server", "etcd-client" } }, { tags = "system" })
    end
    if steps.pending then
      return host:systemd(
        { name = "etcd", restart_on = watched, only_look = true },
        { name = "does etcd have to start anew?", tags = "system" }
      ).pending
    end
    if steps.restart then
      local unit = host:systemd(
        { name = "etcd", restart_on = watched, timeout = p.timeout },
        { name = "etcd runs with today's files", tags = "system" }
      )
      host:wait_for(health, { when = { unit }, tags = "system" })
    end
    if steps.start then
      host:systemd({ name = "etcd", enabled = true, state = "started", restart_on = watched, timeout = p.timeout }, { tags = "system" })
      host:wait_for(health, { tags = "system" })
    end
  end,
}
