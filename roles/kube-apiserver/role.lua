-- Configures kube-apiserver, makes it a service, and checks that it serves: steps three to five of document 001.
-- Certificates (role `pki`) and binaries (role `kubernetes-binaries`) have to be there.

return {
  summary = "kube-apiserver as a systemd service: configuration, unit, state check",

  params = {
    address = { type = "string", required = true, doc = "Address of this master, where the check looks for it." },
    apiserver_count = { type = "integer", required = true, doc = "How many masters there are." },
    etcd_servers = { type = "list", required = true, doc = "Client addresses of etcd: `https://10.4.7.12:2379`, …" },
    local_etcd = { type = "boolean", default = false, doc = "Whether a member of etcd runs on this host and has to be up first." },
    service_cidr = { type = "string", default = "192.168.0.0/16", doc = "Addresses of services." },
    service_node_ports = { type = "string", default = "3000-29999", doc = "Ports that services may open on nodes." },
    authorization_mode = { type = "string", default = "RBAC", doc = "Who decides what a client may do." },
    admission_plugins = {
      type = "list",
      default = {
        "NamespaceLifecycle", "LimitRanger", "ServiceAccount", "DefaultStorageClass", "DefaultTolerationSeconds",
        "MutatingAdmissionWebhook", "ValidatingAdmissionWebhook", "ResourceQuota",
      },
      doc = "Admission plugins that are switched on.",
    },
    target_ram_mb = { type = "integer", default = 1024, doc = "Memory that its caches are sized for, MB." },
    log_level = { type = "integer", default = 2, doc = "Verbosity of its log, 0 to 10." },
    service_account_issuer = { type = "string", default = "k8s.od.com", doc = "Issuer of service account tokens." },
    extra_flags = { type = "list", default = {}, doc = "Further flags, each as one string: `--event-ttl=168h`." },
    conf_folder = { type = "string", default = "/etc/kubernetes/server/conf", doc = "Folder of the audit policy." },
    ssl_folder = { type = "string", default = "/etc/kubernetes/server/ssl", doc = "Folder of the certificates." },
    log_folder = { type = "string", default = "/var/logs/kubernetes/kube-apiserver", doc = "Folder of the logs." },
    steps = {
      type = "list",
      default = { "configure", "serve", "check" },
      items = { type = "string", choices = { "configure", "pending", "serve", "check" } },
      doc = "The document's steps three to five: `configure` writes files, `serve` runs the service, `check` looks whether it works. "
        .. "`pending`, by itself, returns what `serve` would do to the service: `start`, `restart` or nil.",
    },
    timeout = { type = "integer", default = 120, doc = "Seconds within which it has to serve." },
  },

  run = function(host, p)
    local steps = {}
    for _, step in ipairs(p.steps) do
      steps[step] = true
    end
    local policy = p.conf_folder .. "/audit.yml"

    if steps.configure then
      host:file({ path = p.conf_folder, state = "directory", mode = "0755", parents = true })
      host:file({ path = p.log_folder, state = "directory", mode = "0700", parents = true })
      host:copy({ src = "audit.yml", dest = policy, mode = "0644" })
      local unit = "/usr/lib/systemd/system/kube-apiserver.service"
      host:template({ src = "kube-apiserver.service.j2", dest = unit, mode = "0644", parents = true })
    end

    if steps.pending then
      local look = { name = "kube-apiserver", state = "started", restart_on = { policy, p.ssl_folder }, only_look = true }
      return host:systemd(look, { name = "does kube-apiserver have to start anew?", tags = "system" }).pending
    end

    if steps.serve then
      -- It restarts when anything that the running process was started with is different now: these, its unit, its executable.
      host:systemd({
        name = "kube-apiserver",
        enabled = true,
        state = "started",
        restart_on = { policy, p.ssl_folder },
        timeout = p.timeout,
      }, { tags = "system" })
    end

    if steps.check then
      local ca, cert, key = p.ssl_folder .. "/ca.pem", p.ssl_folder .. "/client.pem", p.ssl_folder .. "/client-key.pem"
      host:wait_for({ unit = "kube-apiserver", state = "active", timeout = p.timeout }, { tags = "system" })
      host:wait_for({ port = 6443, timeout = p.timeout }, { tags = "system" })
      for _, server in ipairs(p.etcd_servers) do
        host:wait_for({ url = server .. "/health", ca = ca, cert = cert, key = key, timeout = p.timeout }, { tags = "system" })
      end
      local readyz = "https://" .. p.address .. ":6443/readyz"
      host:wait_for({ url = readyz, ca = ca, cert = cert, key = key, timeout = p.timeout }, { tags = "system" })
      host:command(
        { command = { "/usr/local/bin/kubectl", "get", "ns" }, env = { KUBECONFIG = "/root/.kube/config" }, reads_only = true },
        { name = "kubectl get ns", retries = 5, delay = 2, tags = "system" }
      )
    end
  end,
}
