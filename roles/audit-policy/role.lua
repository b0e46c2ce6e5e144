-- The audit policy that document 001 writes, or one of your own: what kube-apiserver writes down of requests, and how much of them.

-- Returns whether a release such as v1.20.2 is at least 1.MINOR.
local function at_least(version, minor)
  local own = tonumber(version:match("^v?1%.(%d+)"))
  return own ~= nil and own >= minor
end

return {
  summary = "the audit policy of kube-apiserver",

  params = {
    audit_policy = { type = "string", default = "/etc/kubernetes/server/conf/audit.yml", doc = "The file on the host." },
    audit_policy_source = {
      type = "string",
      default = "",
      doc = "A policy of your own, a file on the controller; document 001's, word for word, when empty.",
    },
    kubernetes_version = { type = "string", default = "v1.20.2", doc = "The release that reads it: from v1.24 on it has to be written in `audit.k8s.io/v1`." },
  },

  run = function(host, p)
    local folder = p.audit_policy:match("^(.+)/[^/]+$")
    assert(folder, "`audit_policy` has to be the whole path of a file, not `" .. p.audit_policy .. "`")
    host:file({ path = folder, state = "directory", mode = "0755", parents = true })
    if p.audit_policy_source ~= "" then
      host:copy({ src = p.audit_policy_source, dest = p.audit_policy, mode = "0644" })
    else
      local api = at_least(p.kubernetes_version, 24) and "v1" or "v1beta1"
      host:template({ src = "audit.yml.j2", dest = p.audit_policy, mode = "0644", vars = { api = api } })
    end
  end,
}
