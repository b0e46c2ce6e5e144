-- Runs kube-controller-manager on a master: its certificate, kubeconfig and unit. On several masters one of them is the leader and
-- works; the others wait to take over. It does not sign certificates of kubelets: for that it would need the authority's key,
-- which is on no master.

return {
  summary = "kube-controller-manager as a systemd service, with leader election",

  params = {
    pki_folder = { type = "string", required = true, doc = "Folder of the certificate authority on the controller." },
    ssl_folder = { type = "string", default = "/etc/kubernetes/server/ssl", doc = "Folder of a master's certificates." },
    service_account_key = { type = "string", default = "sa", doc = "The pair that signs service account tokens: `NAME.pem`, `NAME-key.pem`." },
    service_cidr = { type = "string", default = "192.168.0.0/16", doc = "Addresses of services." },
    local_endpoint = { type = "string", default = "https://127.0.0.1:6443", doc = "Where it finds the apiserver." },
    kubernetes_version = { type = "string", default = "v1.20.2", doc = "The release." },
    component_status = {
      type = "boolean",
      default = false,
      doc = "Whether it answers without TLS on the loopback address, too: `kubectl get cs` of releases before v1.23 asks there.",
    },
    controller_manager_flags = { type = "list", default = {}, doc = "Further flags, each as one string." },
    log_level = { type = "integer", default = 2, doc = "Verbosity of its log, 0 to 10." },
    flags_in = {
      type = "string",
      default = "unit",
      choices = { "unit", "environment" },
      doc = "Where the flags stand: in the unit, or in `environment_file` and `controller_manager_environment`.",
    },
    environment_file = { type = "string", default = "/etc/kubernetes/config", doc = "What the units of the control plane share (role `kube-environment`)." },
    controller_manager_environment = { type = "string", default = "/etc/kubernetes/controller-manager", doc = "Its flags alone." },
    conf_folder = { type = "string", default = "/etc/kubernetes/server/conf", doc = "Folder of the kubeconfig." },
    unit_folder = { type = "string", default = "/usr/lib/systemd/system", doc = "Folder of the unit." },
    bin_folder = { type = "string", default = "/usr/local/bin", doc = "Folder of the programs." },
    state_folder = { type = "string", default = "", doc = "Folder of the working directories, below which it gets one of its own; none when empty." },
    steps = {
      type = "list",
      default = { "configure", "serve", "check" },
      items = { type = "string", choices = { "configure", "serve", "check" } },
      doc = "What is done: `configure` writes files, `serve` runs the service, `check` looks whether it works and whether there is a leader.",
    },
    timeout = { type = "integer", default = 120, doc = "Seconds within which it has to work." },
  },

  run = function(host, p)
    local steps = {}
    for _, step in ipairs(p.steps) do
      steps[step] = true
    end
    local name, port = "kube-controller-manager", 10257
    local function file(base)
      return p.ssl_folder .. "/" .. base .. ".pem"
    end
    local kubeconfig = p.conf_folder .. "/" .. name .. ".kubeconfig"
    local environment = p.flags_in == "environment"
    local working_folder = p.state_folder ~= "" and p.state_folder .. "/" .. name or ""

    if steps.configure then
      host:role("kube-client", {
        client = name,
        user = "system:kube-controller-manager",
        kubeconfig = kubeconfig,
        server = p.local_endpoint,
        serving_names = { "127.0.0.1", "localhost" },
        pki_folder = p.pki_folder,
        ssl_folder = p.ssl_folder,
      })
      local flags = {
        "--bind-address=127.0.0.1",
        "--secure-port=" .. port,
        "--tls-cert-file=" .. file(name),
        "--tls-private-key-file=" .. file(name .. "-key"),
        "--client-ca-file=" .. file("ca"),
        "--kubeconfig=" .. kubeconfig,
        "--authentication-kubeconfig=" .. kubeconfig,
        "--authorization-kubeconfig=" .. kubeconfig,
        "--leader-elect=true",
        "--service-account-private-key-file=" .. file(p.service_account_key .. "-key"),
        "--root-ca-file=" .. file("ca"),
        "--use-service-account-credentials=true",
        "--service-cluster-ip-range=" .. p.service_cidr,
        "--controllers=*,bootstrapsigner,tokencleaner",
      }
      -- The port without TLS is gone with v1.24; before, it has to be switched off.
      if tonumber(p.kubernetes_version:match("^v?1%.(%d+)") or 0) < 24 then
        table.insert(flags, "--address=127.0.0.1")
        table.insert(flags, p.component_status and "--port=10252" or "--port=0")
      end
      if not environment then
        table.insert(flags, "--v=" .. p.log_level)
      end
      for _, flag in ipairs(p.controller_manager_flags) do
        table.insert(flags, flag)
      end
      if working_folder ~= "" then
        host:file({ path = working_folder, state = "directory", mode = "0755", parents = true })
      end
      if environment then
        host:role("kube-environment", { environment_file = p.environment_file })
        host:template({ src = "controller-manager.j2", dest = p.controller_manager_environment, mode = "0644", vars = { flags = flags } })
      end
      host:template({
        src = name .. ".service.j2",
        dest = p.unit_folder .. "/" .. name .. ".service",
        mode = "0644",
        parents = true,
        vars = { flags = flags, environment = environment, working_folder = working_folder },
      })
    end

    if steps.serve then
      host:systemd({
        name = name,
        enabled = true,
        state = "started",
        restart_on = {
          kubeconfig, file("ca"), file(name), file(name .. "-key"), file(p.service_account_key .. "-key"),
        },
        timeout = p.timeout,
      }, { tags = "system" })
    end

    if steps.check then
      host:wait_for({ unit = name, state = "active", timeout = p.timeout }, { tags = "system" })
      local healthz = "https://127.0.0.1:" .. port .. "/healthz"
      host:wait_for({ url = healthz, ca = file("ca"), timeout = p.timeout }, { tags = "system" })
      host:command({
        command = {
          p.bin_folder .. "/kubectl", "get", "lease", name, "--namespace=kube-system", "--output=jsonpath={.spec.holderIdentity}",
        },
        env = { KUBECONFIG = "/root/.kube/config" },
        reads_only = true,
      }, { name = name .. " has a leader", retries = 30, delay = 2, failed_if = "^$", tags = "system" })
    end
  end,
}
