-- Installs the Kubernetes server binaries: step two of document 001. A folder per version, a link to the one in use, and
-- links in the search path. Changing the version switches the link; the old folder stays, so that the way back is short.

local programs = {
  "apiextensions-apiserver", "kubeadm", "kube-aggregator", "kube-apiserver", "kube-controller-manager", "kubectl", "kubelet",
  "kube-proxy", "kube-scheduler", "mounter",
}

return {
  summary = "the Kubernetes server binaries in a folder of their version, linked into the search path",

  params = {
    archive = { type = "string", required = true, doc = "The release's `kubernetes-server-linux-amd64.tar.gz`, a file on the controller." },
    checksum = { type = "string", default = "", doc = "What the archive must be: `sha512:…` or `sha256:…`. Not compared when empty." },
    version = { type = "string", required = true, doc = "The release, as its folder is to be called: `v1.21.1`." },
    folder = { type = "string", default = "/usr/local", doc = "Where the release's folder and the link go." },
    master_owner = { type = "string", default = "root", doc = "Owner of what is installed. When empty, owners are left alone." },
    steps = {
      type = "list",
      default = { "unpack", "link" },
      items = { type = "string", choices = { "unpack", "link" } },
      doc = "What is done: `unpack` puts the release beside others, `link` makes it the one in use.",
    },
    bin_folder = { type = "string", default = "/usr/local/bin", doc = "Folder of the search path that gets a link for each program." },
  },

  run = function(host, p)
    local steps = {}
    for _, step in ipairs(p.steps) do
      steps[step] = true
    end
    local owner = p.master_owner ~= "" and p.master_owner or nil
    local link = p.folder .. "/kubernetes-server"
    local release = link .. "-" .. p.version

    if steps.unpack then
      -- Only what runs is kept: no sources, no container images. They are never unpacked, and removed where they lie about.
      host:archive({
        src = p.archive,
        checksum = p.checksum ~= "" and p.checksum or nil,
        dest = release,
        strip = 1,
        exclude = { "kubernetes-src.tar.gz", "*.tar", "*_tag" },
        owner = owner,
        group = owner,
        parents = true,
      })
    end
    if not steps.link then
      return
    end
    host:file({ path = p.bin_folder, state = "directory", parents = true })
    host:file({ path = link, state = "link", target = release })
    for _, program in ipairs(programs) do
      host:file({ path = p.bin_folder .. "/" .. program, state = "link", target = link .. "/server/bin/" .. program })
    end
  end,
}
