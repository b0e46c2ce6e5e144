-- Configures kube-apiserver, makes it a service, and checks that it serves: steps three to five of document 001, as documents
-- 000 and 002 do it, too. Certificates (role `pki`) and binaries (role `kubernetes-binaries`) have to be there.

local flags = require "flags"

-- Refuses flags with which it would start, and nothing in the cluster would work.
local function examine(list)
  for _, flag in ipairs(list) do
    local plugins = "," .. tostring(flag.value) .. ","
    local has = plugins:find(",ServiceAccount,", 1, true)
    -- This flag switches off whatever it does not name; the newer one adds to what is on.
    assert(
      flag.name ~= "admission-control" or has,
      "--admission-control has to contain ServiceAccount (`admission_plugins`): without it no pod gets a token"
    )
    local loopback = flag.value == "127.0.0.1" or flag.value == "::1" or flag.value == "localhost"
    assert(flag.name ~= "bind-address" or not loopback, "--bind-address (`bind_address`) must not be " .. tostring(flag.value) .. ": no other machine would reach it")
    assert(flag.name ~= "disable-admission-plugins" or not has, "--disable-admission-plugins must not contain ServiceAccount: no pod would get a token")
  end
end

-- Returns all flags, in the order of document 001; what it does not have comes behind. `variable` is where a flag goes in the style
-- of document 002.
local function flags_of(p)
  local list = {}
  local function flag(name, value, how)
    if value ~= nil and value ~= "" then
      table.insert(list, { name = name, value = value, sign = how and how.sign, variable = how and how.variable })
    end
  end
  local function file(name)
    return p.ssl_folder .. "/" .. name .. ".pem"
  end
  local environment = p.flags_in == "environment"

  flag("advertise-address", p.advertise and p.address or nil, { variable = "KUBE_API_ADDRESS" })
  flag("bind-address", p.bind_address)
  flag("secure-port", p.secure_port)
  flag("insecure-port", p.insecure_port)
  flag("apiserver-count", p.apiserver_count)
  flag("endpoint-reconciler-type", p.endpoint_reconciler_type)
  flag("audit-log-path", p.audit_log_path)
  flag("audit-log-maxage", p.audit_log_maxage)
  flag("audit-log-maxbackup", p.audit_log_maxbackup)
  flag("audit-log-maxsize", p.audit_log_maxsize)
  flag("audit-log-mode", p.audit_log_mode)
  flag("audit-policy-file", p.audit_policy)
  flag("authorization-mode", p.authorization_mode)
  flag("anonymous-auth", p.anonymous_auth)
  flag("client-ca-file", file("ca"))
  flag("enable-bootstrap-token-auth", p.bootstrap_token_auth)
  flag("token-auth-file", p.token_auth_file)
  flag("requestheader-client-ca-file", p.aggregation and file("front-proxy-ca") or p.requestheader_ca and file("ca") or nil)
  if p.aggregation then
    flag("requestheader-allowed-names", "aggregator")
    flag("requestheader-extra-headers-prefix", "X-Remote-Extra-")
    flag("requestheader-group-headers", "X-Remote-Group")
    flag("requestheader-username-headers", "X-Remote-User")
    flag("proxy-client-cert-file", file("proxy-client"))
    flag("proxy-client-key-file", file("proxy-client-key"))
    flag("enable-aggregator-routing", p.aggregator_routing)
  end
  flag(p.admission_flag, table.concat(p.admission_plugins, ","), { variable = "KUBE_ADMISSION_CONTROL" })
  flag("default-not-ready-toleration-seconds", p.default_not_ready_toleration_seconds)
  flag("default-unreachable-toleration-seconds", p.default_unreachable_toleration_seconds)
  flag("max-requests-inflight", p.max_requests_inflight)
  flag("max-mutating-requests-inflight", p.max_mutating_requests_inflight)
  flag("encryption-provider-config", p.encryption_config)
  flag("etcd-cafile", file("ca"))
  flag("etcd-certfile", file(p.client_cert))
  flag("etcd-keyfile", file(p.client_cert .. "-key"))
  flag("etcd-servers", table.concat(p.etcd_servers, ","), { variable = "KUBE_ETCD_SERVERS" })
  flag("event-ttl", p.event_ttl)
  flag("allow-privileged", p.allow_privileged, { variable = "KUBE_ALLOW_PRIV" })
  flag("runtime-config", p.runtime_config)
  flag("service-account-key-file", file(p.service_account_key))
  flag("service-cluster-ip-range", p.service_cidr, { variable = "KUBE_SERVICE_ADDRESSES" })
  flag("service-node-port-range", p.service_node_ports)
  flag("target-ram-mb", p.target_ram_mb, { sign = "=" })
  flag("kubelet-certificate-authority", p.kubelet_ca and file("ca") or nil)
  flag("kubelet-client-certificate", p.kubelet_client and file(p.client_cert) or nil)
  flag("kubelet-client-key", p.kubelet_client and file(p.client_cert .. "-key") or nil)
  flag("kubelet-timeout", p.kubelet_timeout)
  flag("profiling", p.profiling)
  -- Document 002 has these in the file that three units share.
  if not environment then
    flag("logtostderr", p.logtostderr)
    flag("log-dir", p.log_folder)
  end
  flag("tls-cert-file", file(p.apiserver_cert))
  flag("tls-private-key-file", file(p.apiserver_cert .. "-key"))
  if not environment then
    flag("v", p.log_level)
  end
  for _, text in ipairs(p.extra_flags) do
    local extra = flags.read(text)
    extra.sign = "="
    table.insert(list, extra)
  end
  flag("service-account-issuer", p.service_account_issuer, { sign = "=" })
  flag("service-account-signing-key-file", file(p.service_account_key .. "-key"))
  examine(list)
  return flags.translate(list, p.kubernetes_version)
end

-- Returns the files that the running process read when it started.
local function files_of(p)
  local names = { "ca", p.client_cert, p.client_cert .. "-key", p.service_account_key, p.service_account_key .. "-key" }
  if p.apiserver_cert ~= p.client_cert then
    table.insert(names, p.apiserver_cert)
    table.insert(names, p.apiserver_cert .. "-key")
  end
  if p.aggregation then
    for _, name in ipairs({ "front-proxy-ca", "proxy-client", "proxy-client-key" }) do
      table.insert(names, name)
    end
  end
  local files = {}
  for _, name in ipairs(names) do
    table.insert(files, p.ssl_folder .. "/" .. name .. ".pem")
  end
  for _, path in ipairs({ p.audit_policy, p.encryption_config, p.token_auth_file }) do
    if path ~= "" then
      table.insert(files, path)
    end
  end
  return files
end

-- Returns the folder that a file lies in.
local function folder_of(path)
  return path:match("^(.+)/[^/]+$") or "/"
end

return {
  summary = "kube-apiserver as a systemd service: configuration, unit, state check",

  params = {
    -- Where it is
    address = { type = "string", required = true, doc = "Address of this master, where the check looks for it." },
    apiserver_count = { type = "integer", required = true, doc = "How many masters there are." },
    etcd_servers = { type = "list", required = true, doc = "Client addresses of etcd: `https://10.4.7.12:2379`, …" },
    local_etcd = { type = "boolean", default = false, doc = "Whether a member of etcd runs on this host." },
    etcd_dependency = {
      type = "string",
      default = "requires",
      choices = { "requires", "after", "none" },
      doc = "What the unit says of a local etcd: stop with it (document 001), start after it (002), nothing (000).",
    },
    kubernetes_version = { type = "string", default = "v1.20.2", doc = "The release. Flags that it does not know are translated, or left out with the reason." },
    advertise = { type = "boolean", default = false, doc = "Whether `address` is given as --advertise-address; else it finds one itself." },
    bind_address = { type = "string", doc = "Address that it listens on." },
    secure_port = { type = "integer", doc = "Port that it listens on; 6443 when not given." },
    insecure_port = { type = "integer", choices = { 0 }, doc = "Port without TLS: 0, which is none." },

    -- What it serves
    service_cidr = { type = "string", default = "192.168.0.0/16", doc = "Addresses of services." },
    service_node_ports = { type = "string", default = "3000-29999", doc = "Ports that services may open on nodes; Kubernetes' own when empty." },
    endpoint_reconciler_type = { type = "string", doc = "Who keeps the addresses behind the service `kubernetes`: `lease`." },
    event_ttl = { type = "string", doc = "How long events are kept: `168h`." },
    runtime_config = { type = "string", doc = "API versions that are switched on or off: `api/all=true`." },
    max_requests_inflight = { type = "integer", doc = "Reading requests at a time; more are turned away." },
    max_mutating_requests_inflight = { type = "integer", doc = "Writing requests at a time." },
    target_ram_mb = { type = "integer", doc = "Memory that its caches are sized for, MB; without effect in newer releases." },
    profiling = { type = "boolean", doc = "Whether profiles can be had at /debug/pprof." },

    -- Who may do what
    authorization_mode = { type = "string", default = "RBAC", doc = "Who decides what a client may do." },
    anonymous_auth = { type = "boolean", doc = "Whether a request without credentials is let in as `system:anonymous`." },
    bootstrap_token_auth = { type = "boolean", doc = "Whether bootstrap tokens, Secrets in kube-system, let kubelets in." },
    token_auth_file = { type = "string", default = "", doc = "File of static tokens (role `token-file`); none when empty." },
    admission_plugins = {
      type = "list",
      default = {
        "NamespaceLifecycle", "LimitRanger", "ServiceAccount", "DefaultStorageClass", "DefaultTolerationSeconds",
        "MutatingAdmissionWebhook", "ValidatingAdmissionWebhook", "ResourceQuota",
      },
      doc = "Admission plugins that are switched on.",
    },
    admission_flag = {
      type = "string",
      default = "enable-admission-plugins",
      choices = { "enable-admission-plugins", "admission-control" },
      doc = "The flag that names them; document 002's admission-control is translated for releases that have the other one.",
    },
    default_not_ready_toleration_seconds = { type = "integer", doc = "For how long pods stay on a node that is not ready." },
    default_unreachable_toleration_seconds = { type = "integer", doc = "For how long pods stay on a node that cannot be reached." },
    allow_privileged = { type = "boolean", doc = "Whether privileged containers may run." },
    service_account_issuer = { type = "string", default = "k8s.od.com", doc = "Issuer of service account tokens." },

    -- What is kept and written down
    encryption_config = { type = "string", default = "", doc = "Encryption of Secrets in etcd (role `encryption-at-rest`); none when empty." },
    audit_policy = {
      type = "string",
      default = "/etc/kubernetes/server/conf/audit.yml",
      doc = "The audit policy (role `audit-policy` writes it); no audit when empty.",
    },
    audit_log_path = { type = "string", default = "/var/logs/kubernetes/kube-apiserver/audit-log", doc = "The audit log; none when empty." },
    audit_log_maxage = { type = "integer", doc = "For how many days old audit logs are kept." },
    audit_log_maxbackup = { type = "integer", doc = "How many old audit logs are kept." },
    audit_log_maxsize = { type = "integer", doc = "Megabytes after which a new audit log is begun." },
    audit_log_mode = { type = "string", choices = { "batch", "blocking", "blocking-strict" }, doc = "Whether requests wait for the audit log." },
    log_level = { type = "integer", default = 2, doc = "Verbosity of its log, 0 to 10." },
    logtostderr = { type = "boolean", doc = "Whether it logs to the journal instead of into files." },
    log_folder = { type = "string", default = "/var/logs/kubernetes/kube-apiserver", doc = "Folder of the logs; none when empty." },

    -- Certificates
    ssl_folder = { type = "string", default = "/etc/kubernetes/server/ssl", doc = "Folder of the certificates." },
    apiserver_cert = { type = "string", default = "apiserver", doc = "The certificate that it serves with, `NAME.pem`." },
    client_cert = { type = "string", default = "client", doc = "The certificate that it shows to etcd and kubelets, `NAME.pem`." },
    service_account_key = { type = "string", default = "sa", doc = "The pair that signs service account tokens: `NAME.pem`, `NAME-key.pem`." },
    kubelet_client = { type = "boolean", default = true, doc = "Whether it shows `client_cert` to kubelets." },
    kubelet_ca = { type = "boolean", default = false, doc = "Whether kubelets have to show a certificate of the same authority." },
    kubelet_timeout = { type = "string", doc = "How long a kubelet may take to answer: `10s`." },
    kubelet_user = {
      type = "string",
      default = "",
      doc = "The common name of `client_cert`, if it shall be allowed to speak to kubelets (ClusterRole system:kubelet-api-admin).",
    },
    requestheader_ca = { type = "boolean", default = true, doc = "Whether --requestheader-client-ca-file is given without an aggregation layer, too." },
    aggregation = {
      type = "boolean",
      default = false,
      doc = "Whether other API servers (metrics-server) can be added: with a front-proxy authority and client of their own, from role `pki`.",
    },
    aggregator_routing = { type = "boolean", doc = "Whether those are reached at their endpoints; needed where no kube-proxy runs on masters." },

    -- The service
    flags_in = {
      type = "string",
      default = "unit",
      choices = { "unit", "environment" },
      doc = "Where the flags stand: in the unit (documents 000, 001), or in `environment_file` and `apiserver_environment` (002).",
    },
    environment_file = { type = "string", default = "/etc/kubernetes/config", doc = "What the units of the control plane share (role `kube-environment`)." },
    apiserver_environment = { type = "string", default = "/etc/kubernetes/apiserver", doc = "The flags of kube-apiserver alone." },
    extra_flags = { type = "list", default = {}, doc = "Further flags, each as one string: `--goaway-chance=0.001`." },
    unit_folder = { type = "string", default = "/usr/lib/systemd/system", doc = "Folder of the unit." },
    apiserver_description = { type = "string", default = "kube-apiserver", doc = "What the unit says that it is." },
    restart_sec = { type = "string", default = "10s", doc = "After what time it is started again when it has failed; systemd's own when empty." },
    bin_folder = { type = "string", default = "/usr/local/bin", doc = "Folder of the programs." },
    state_folder = { type = "string", default = "", doc = "Folder of the working directories, below which it gets one of its own; none when empty." },
    steps = {
      type = "list",
      default = { "configure", "serve", "check" },
      items = { type = "string", choices = { "configure", "flags", "pending", "serve", "check" } },
      doc = "The document's steps three to five: `configure` writes files, `serve` runs the service, `check` looks whether it works. "
        .. "By themselves, `flags` returns all its flags, `pending` what `serve` would do to the service: `start`, `restart` or nil.",
    },
    timeout = { type = "integer", default = 120, doc = "Seconds within which it has to serve." },
  },

  run = function(host, p)
    local steps = {}
    for _, step in ipairs(p.steps) do
      steps[step] = true
    end
    local environment = p.flags_in == "environment"
    local port = p.secure_port or 6443
    local working_folder = p.state_folder ~= "" and p.state_folder .. "/kube-apiserver" or nil
    local grant = folder_of(p.ssl_folder) .. "/kubelet-api-admin.yaml"

    if steps.configure then
      -- Folders of logs are nobody else's business, a working folder is, unless it is one of them.
      local folders = {}
      if working_folder then
        folders[working_folder] = "0755"
      end
      for _, folder in ipairs({ p.log_folder, p.audit_log_path ~= "" and folder_of(p.audit_log_path) or "" }) do
        if folder ~= "" then
          folders[folder] = "0700"
        end
      end
      for folder, mode in pairs(folders) do
        host:file({ path = folder, state = "directory", mode = mode, parents = true })
      end
      if p.audit_policy ~= "" then
        host:role("audit-policy", { audit_policy = p.audit_policy, kubernetes_version = p.kubernetes_version })
      end
      if p.kubelet_user ~= "" then
        host:template({ src = "kubelet-api-admin.yaml.j2", dest = grant, mode = "0644", parents = true })
      end
      local list, remarks = flags_of(p)
      if environment then
        host:role("kube-environment", { environment_file = p.environment_file })
        local variables = { KUBE_API_ARGS = {} }
        for _, flag in ipairs(list) do
          -- The shared file has it already.
          if flag.variable ~= "KUBE_ALLOW_PRIV" then
            local name = flag.variable or "KUBE_API_ARGS"
            variables[name] = variables[name] or {}
            table.insert(variables[name], flags.show(flag, "="))
          end
        end
        for name, parts in pairs(variables) do
          variables[name] = table.concat(parts, " ")
        end
        host:template({
          src = "apiserver.j2",
          dest = p.apiserver_environment,
          mode = "0644",
          parents = true,
          vars = { variables = variables, remarks = remarks },
        })
      end
      local shown = {}
      for _, flag in ipairs(list) do
        table.insert(shown, flags.show(flag, " "))
      end
      local unit = p.unit_folder .. "/kube-apiserver.service"
      host:template({
        src = "kube-apiserver.service.j2",
        dest = unit,
        mode = "0644",
        parents = true,
        vars = { flags = shown, remarks = remarks, working_folder = working_folder or "" },
      })
    end

    if steps.flags then
      local shown = {}
      for _, flag in ipairs((flags_of(p))) do
        table.insert(shown, flags.show(flag, "="))
      end
      return shown
    end

    if steps.pending then
      local look = { name = "kube-apiserver", state = "started", restart_on = files_of(p), only_look = true }
      return host:systemd(look, { name = "does kube-apiserver have to start anew?", tags = "system" }).pending
    end

    if steps.serve then
      -- It restarts when anything that the running process was started with is different now: these, its unit, its environment
      -- files, its executable.
      host:systemd(
        { name = "kube-apiserver", enabled = true, state = "started", restart_on = files_of(p), timeout = p.timeout },
        { tags = "system" }
      )
    end

    if steps.check then
      local ca, cert = p.ssl_folder .. "/ca.pem", p.ssl_folder .. "/" .. p.client_cert .. ".pem"
      local key = p.ssl_folder .. "/" .. p.client_cert .. "-key.pem"
      host:wait_for({ unit = "kube-apiserver", state = "active", timeout = p.timeout }, { tags = "system" })
      host:wait_for({ port = port, served_by = "kube-apiserver", timeout = p.timeout }, { tags = "system" })
      for _, server in ipairs(p.etcd_servers) do
        host:wait_for({ url = server .. "/health", ca = ca, cert = cert, key = key, timeout = p.timeout }, { tags = "system" })
      end
      local readyz = "https://" .. p.address .. ":" .. port .. "/readyz"
      host:wait_for({ url = readyz, ca = ca, cert = cert, key = key, served_by = "kube-apiserver", timeout = p.timeout }, { tags = "system" })
      -- This master is asked, whatever stands in front of all of them.
      local kubectl = { p.bin_folder .. "/kubectl", "--server=https://127.0.0.1:" .. port }
      local function ask(...)
        return { kubectl[1], kubectl[2], ... }
      end
      local with = { KUBECONFIG = "/root/.kube/config" }
      host:command(
        { command = ask("get", "ns"), env = with, reads_only = true },
        { name = "kubectl get ns", retries = 5, delay = 2, tags = "system" }
      )
      if p.kubelet_user ~= "" then
        host:command(
          { command = ask("apply", "-f", grant), env = with, unless = ask("diff", "-f", grant) },
          { name = "kubelets let " .. p.kubelet_user .. " in", tags = "system" }
        )
      end
    end
  end,
}
