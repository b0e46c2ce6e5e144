-- The environment that kube-apiserver, kube-controller-manager and kube-scheduler share where their units read their flags out of
-- files, as document 002 does.

return {
  summary = "the environment file that the control plane's units share",

  params = {
    environment_file = { type = "string", default = "/etc/kubernetes/config", doc = "The file." },
    logtostderr = { type = "boolean", default = true, doc = "Whether logs go to the journal instead of into files." },
    log_folder = { type = "string", default = "", doc = "Folder of the logs." },
    shared_log_level = { type = "integer", default = 0, doc = "Verbosity of the logs, 0 to 10." },
    allow_privileged = { type = "boolean", default = true, doc = "Whether privileged containers may run." },
  },

  run = function(host, p)
    local folder = p.environment_file:match("^(.+)/[^/]+$")
    assert(folder, "`environment_file` has to be the whole path of a file, not `" .. p.environment_file .. "`")
    host:file({ path = folder, state = "directory", mode = "0755", parents = true })
    if p.log_folder ~= "" then
      host:file({ path = p.log_folder, state = "directory", mode = "0700", parents = true })
    end
    host:template({ src = "config.j2", dest = p.environment_file, mode = "0644" })
  end,
}
