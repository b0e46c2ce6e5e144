-- What kube-controller-manager and kube-scheduler have in common: each runs on all masters beside the apiserver, one of them is the
-- leader and works, the others wait to take over.
--
--   return controller({
--     name = "kube-scheduler",      -- of the program, its unit, its files, and the role
--     short = "scheduler",          -- of the parameters and of the file that are its own
--     port = 10259,                 -- with TLS
--     plain_port = 10251,           -- without, on the loopback address, until v1.23
--     params = {},                  -- further parameters
--     flags = function(p, file) … end,   -- further flags; file("ca") is the path of ca.pem
--     keys = function(p) … end,     -- further files that it reads at its start, named as for file()
--   })

return function(own)
  local name, variable = own.name, own.short:gsub("%-", "_")
  local flags_param, environment_param = variable .. "_flags", variable .. "_environment"

  local params = {
    pki_folder = { type = "string", required = true, doc = "Folder of the certificate authority on the controller." },
    ssl_folder = { type = "string", default = "/etc/kubernetes/server/ssl", doc = "Folder of a master's certificates." },
    local_endpoint = { type = "string", default = "https://127.0.0.1:6443", doc = "Where it finds the apiserver." },
    kubernetes_version = { type = "string", default = "v1.20.2", doc = "The release." },
    component_status = {
      type = "boolean",
      default = false,
      doc = "Whether it answers without TLS on the loopback address, too: `kubectl get cs` of releases before v1.23 asks there.",
    },
    [flags_param] = { type = "list", default = {}, doc = "Further flags, each as one string." },
    log_level = { type = "integer", default = 2, doc = "Verbosity of its log, 0 to 10." },
    flags_in = {
      type = "string",
      default = "unit",
      choices = { "unit", "environment" },
      doc = "Where the flags stand: in the unit, or in `environment_file` and `" .. environment_param .. "`.",
    },
    environment_file = { type = "string", default = "/etc/kubernetes/config", doc = "What the units of the control plane share (role `kube-environment`)." },
    [environment_param] = { type = "string", default = "/etc/kubernetes/" .. own.short, doc = "Its flags alone." },
    conf_folder = { type = "string", default = "/etc/kubernetes/server/conf", doc = "Folder of the kubeconfig." },
    unit_folder = { type = "string", default = "/usr/lib/systemd/system", doc = "Folder of the unit." },
    bin_folder = { type = "string", default = "/usr/local/bin", doc = "Folder of the programs." },
    state_folder = { type = "string", default = "", doc = "Folder of the working directories, below which it gets one of its own; none when empty." },
    admin_kubeconfig = { type = "string", default = "/root/.kube/config", doc = "The administrator's kubeconfig, with which the check looks for a leader." },
    steps = {
      type = "list",
      default = { "configure", "serve", "check" },
      items = { type = "string", choices = { "configure", "flags", "serve", "check" } },
      doc = "What is done: `configure` writes files, `flags` only returns the flags, `serve` runs the service, `check` looks whether it works and "
        .. "whether there is a leader.",
    },
    timeout = { type = "integer", default = 120, doc = "Seconds within which it has to work." },
  }
  for param, declared in pairs(own.params) do
    params[param] = declared
  end

  -- Returns the flags that stand in files of its own.
  local function flags_of(p, file, kubeconfig)
    local flags = {
      "--bind-address=127.0.0.1",
      "--secure-port=" .. own.port,
      "--tls-cert-file=" .. file(name),
      "--tls-private-key-file=" .. file(name .. "-key"),
      "--client-ca-file=" .. file("ca"),
      "--kubeconfig=" .. kubeconfig,
      "--authentication-kubeconfig=" .. kubeconfig,
      "--authorization-kubeconfig=" .. kubeconfig,
      "--leader-elect=true",
    }
    local function add(list)
      for _, flag in ipairs(list) do
        table.insert(flags, flag)
      end
    end
    add(own.flags(p, file))
    -- The port without TLS is gone with v1.24; before, it has to be switched off.
    if tonumber(p.kubernetes_version:match("^v?1%.(%d+)") or 0) < 24 then
      add({ "--address=127.0.0.1", "--port=" .. (p.component_status and own.plain_port or 0) })
    end
    if p.flags_in ~= "environment" then
      add({ "--v=" .. p.log_level })
    end
    add(p[flags_param])
    return flags
  end

  local function configure(host, p, file, kubeconfig)
    host:role("kube-client", {
      client = name,
      user = "system:" .. name,
      kubeconfig = kubeconfig,
      server = p.local_endpoint,
      serving_names = { "127.0.0.1", "localhost" },
      pki_folder = p.pki_folder,
      ssl_folder = p.ssl_folder,
    })
    local flags, environment = flags_of(p, file, kubeconfig), p.flags_in == "environment"
    local working_folder = p.state_folder ~= "" and p.state_folder .. "/" .. name or ""
    if working_folder ~= "" then
      host:file({ path = working_folder, state = "directory", mode = "0755", parents = true })
    end
    if environment then
      host:role("kube-environment", { environment_file = p.environment_file })
      host:template({ src = own.short .. ".j2", dest = p[environment_param], mode = "0644", vars = { flags = flags } })
    end
    host:template({
      src = name .. ".service.j2",
      dest = p.unit_folder .. "/" .. name .. ".service",
      mode = "0644",
      parents = true,
      vars = { flags = flags, environment = environment, working_folder = working_folder },
    })
  end

  return {
    summary = name .. " as a systemd service, with leader election",
    params = params,
    run = function(host, p)
      local steps = {}
      for _, step in ipairs(p.steps) do
        steps[step] = true
      end
      local function file(base)
        return p.ssl_folder .. "/" .. base .. ".pem"
      end
      local kubeconfig = p.conf_folder .. "/" .. name .. ".kubeconfig"
      if steps.flags then
        return flags_of(p, file, kubeconfig)
      end
      if steps.configure then
        configure(host, p, file, kubeconfig)
      end
      if steps.serve then
        local watched = { kubeconfig, file("ca"), file(name), file(name .. "-key") }
        for _, key in ipairs(own.keys(p)) do
          table.insert(watched, file(key))
        end
        host:systemd({ name = name, enabled = true, state = "started", restart_on = watched, timeout = p.timeout }, { tags = "system" })
      end
      if steps.check then
        host:wait_for({ unit = name, state = "active", timeout = p.timeout }, { tags = "system" })
        local healthz = "https://127.0.0.1:" .. own.port .. "/healthz"
        host:wait_for({ url = healthz, ca = file("ca"), served_by = name, timeout = p.timeout }, { tags = "system" })
        host:command({
          command = {
            p.bin_folder .. "/kubectl", "get", "lease", name, "--namespace=kube-system", "--output=jsonpath={.spec.holderIdentity}",
          },
          env = { KUBECONFIG = p.admin_kubeconfig },
          reads_only = true,
        }, { name = name .. " has a leader", retries = 30, delay = 2, failed_if = "^$", tags = "system" })
      end
    end,
  }
end
