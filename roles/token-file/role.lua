-- Static tokens of clients that have no certificate yet, as document 002 gives them to kube-apiserver: `token.csv`, the same on all
-- masters, and the kubeconfig with which a kubelet begins. The file is kept on the controller, made on first use with one
-- token, and adopted where a master has one and the controller has none.

-- Returns a file's lines, by name of the user, and declares all tokens secret.
local function users_of(text, where)
  local users = {}
  for line in text:gmatch("[^\r\n]+") do
    local token, user = line:match("^([^,]+),([^,]+),[^,]+")
    assert(token, where .. " has a line that is not `TOKEN,USER,UID,\"GROUPS\"`")
    assert(not users[user], where .. " has two tokens for `" .. user .. "`")
    users[user] = secret(token)
  end
  return users
end

local function text_on(host, path)
  local found = host:stat({ path = path, content = true, digest = false }, { name = "tokens of " .. host.name, sensitive = true })
  return found.exists and found.content or nil
end

return {
  summary = "static tokens for kube-apiserver, and the kubeconfig with which a kubelet begins",

  params = {
    token_auth_file = { type = "string", default = "/etc/kubernetes/token.csv", doc = "The file on the host." },
    tokens = {
      type = "string",
      required = true,
      doc = "The file on the controller that keeps the tokens: `pki/NAME/token.csv`. Made on first use, or adopted from a master.",
    },
    token_peers = { type = "list", default = {}, items = { type = "string" }, doc = "All masters, by name: where tokens to adopt may lie." },
    bootstrap_user = { type = "string", default = "kubelet-bootstrap", doc = "The user that the first token is made for." },
    bootstrap_kubeconfig = { type = "string", default = "", doc = "A kubeconfig with that user's token; none when empty." },
    bootstrap_server = { type = "string", default = "https://127.0.0.1:6443", doc = "Where a kubelet with it finds the apiserver." },
    ssl_folder = { type = "string", default = "/etc/kubernetes/server/ssl", doc = "Folder of a master's certificates." },
    master_owner = { type = "string", default = "root", doc = "Owner of the files. When empty, owners are left alone." },
  },

  run = function(host, p)
    local owner = p.master_owner ~= "" and p.master_owner or nil
    local file = "`" .. p.tokens .. "` on the controller"
    if not kept(p.tokens) then
      once("tokens of " .. p.tokens, function()
        local text, from
        for _, name in ipairs(p.token_peers) do
          local found = text_on(hosts(name)[1], p.token_auth_file)
          assert(
            not (text and found and found ~= text),
            "`" .. p.token_auth_file .. "` differs between " .. tostring(from) .. " and " .. name .. ", and there is no " .. file
              .. " that says which is right: write that file with the tokens of both"
          )
          if found then
            text, from = found, name
          end
        end
        local token = random_secret(24):gsub("[^%w]", "0")
        keep(p.tokens, text or secret(token) .. "," .. p.bootstrap_user .. ",10001,\"system:" .. p.bootstrap_user .. "\"\n")
      end)
    end
    local text = kept(p.tokens)
    local users = users_of(text, file)

    local here = text_on(host, p.token_auth_file)
    for user, token in pairs(here and users_of(here, "`" .. p.token_auth_file .. "` on " .. host.name) or {}) do
      assert(
        not (users[user] == nil),
        "`" .. p.token_auth_file .. "` on " .. host.name .. " has a token for `" .. user .. "`, which " .. file .. " does not have: "
          .. "it would stop being valid. Add its line there, or take it out on the host"
      )
      secret(token)
    end

    local folder = p.token_auth_file:match("^(.+)/[^/]+$")
    host:file({ path = folder, state = "directory", mode = "0755", parents = true })
    host:copy({ content = text, dest = p.token_auth_file, mode = "0600", owner = owner, group = owner, secret = true })
    if p.bootstrap_kubeconfig ~= "" then
      assert(users[p.bootstrap_user], file .. " has no token for `" .. p.bootstrap_user .. "`")
      host:kubeconfig({
        path = p.bootstrap_kubeconfig,
        server = p.bootstrap_server,
        certificate_authority = p.ssl_folder .. "/ca.pem",
        user = p.bootstrap_user,
        token = users[p.bootstrap_user],
        embed = true,
        mode = "0600",
        owner = owner,
        group = owner,
        parents = true,
      })
    end
  end,
}
