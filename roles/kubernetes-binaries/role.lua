-- Installs the Kubernetes server binaries: step two of document 001. A folder per version, a link to the one in use, and
-- links in the search path. Changing the version switches the link; the old folder stays, so that the way back is short.

local programs = {
  "apiextensions-apiserver", "kubeadm", "kube-aggregator", "kube-apiserver", "kube-controller-manager", "kubectl", "kubelet",
  "kube-proxy", "kube-scheduler", "mounter",
}

return {
  summary = "the Kubernetes server binaries in a folder of their version, linked into the search path",

  params = {
    archive = { type = "string", required = true, doc = "The release's `kubernetes-server-linux-amd64.tar.gz`: a file on the controller, or its address." },
    checksum = { type = "string", default = "", doc = "What the archive must be: `sha512:…` or `sha256:…`. A file is not compared when it is empty; an address needs it." },
    version = { type = "string", required = true, doc = "The release, as its folder is to be called: `v1.21.1`." },
    release_link = {
      type = "string",
      default = "/usr/local/kubernetes-server",
      doc = "The link to the release in use. The release itself lies beside it, with its version behind the name.",
    },
    master_owner = { type = "string", default = "root", doc = "Owner of what is installed. When empty, owners are left alone." },
    steps = {
      type = "list",
      default = { "unpack", "link" },
      items = { type = "string", choices = { "unpack", "link" } },
      doc = "What is done: `unpack` puts the release beside others, `link` makes it the one in use.",
    },
    bin_folder = {
      type = "string",
      default = "/usr/local/bin",
      doc = "Folder that gets a link for each program. If it is the release's own, `server/bin` below `release_link`, it needs none.",
    },
    path_folder = { type = "string", default = "/usr/local/bin", doc = "Folder of the search path, which gets a link for kubectl." },
  },

  run = function(host, p)
    local steps = {}
    for _, step in ipairs(p.steps) do
      steps[step] = true
    end
    local owner = p.master_owner ~= "" and p.master_owner or nil
    local link = p.release_link
    local own = link .. "/server/bin"
    local release = link .. "-" .. p.version

    if steps.unpack then
      -- Only what runs is kept: no sources, no container images. They are never unpacked, and removed where they lie about.
      local is_address = p.archive:find("^%a+://") ~= nil
      host:archive({
        src = not is_address and p.archive or nil,
        url = is_address and p.archive or nil,
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
    host:file({ path = link, state = "link", target = release })
    local function put(program, folder)
      host:file({ path = folder .. "/" .. program, state = "link", target = own .. "/" .. program })
    end
    if p.bin_folder ~= own then
      host:file({ path = p.bin_folder, state = "directory", parents = true })
      for _, program in ipairs(programs) do
        put(program, p.bin_folder)
      end
    end
    if p.path_folder ~= p.bin_folder then
      host:file({ path = p.path_folder, state = "directory", parents = true })
      put("kubectl", p.path_folder)
    end
  end,
}
