-- Secrets in etcd are encrypted: the configuration that document 000 writes by hand, with keys that all masters share.
--
-- The keys are kept on the controller, in a file beside the authority (roles/lib/encryption_keys.lua).
--
-- They are made once, and adopted where a master has some and the controller has none. Whatever could make Secrets unreadable is
-- refused: a key on a master that the controller does not know, and a first key that this master could not read yet.

local encryption_keys = require "lib.encryption_keys"

-- Stands in document 000, and so is known to everybody.
local published = "lU9S9JnBJuVEqj6F7OyMAChw3T7cZwl16KmJ8gQtOnw="

-- Refuses what is wrong with a list of keys. `where` names it.
local function examine(keys, where)
  assert(#keys > 0, where .. " holds no key")
  local known = {}
  for _, key in ipairs(keys) do
    assert(not known[key.name], where .. " has two keys that are called `" .. key.name .. "`")
    known[key.name] = true
    secret(key.secret)
  end
  assert(
    keys[1].secret ~= published or #keys > 1,
    where .. ": `" .. keys[1].name .. "` is the key that document 000 publishes, so it keeps nothing secret. "
      .. "Write a file with it as the first of `keys` and a new one as the second (32 random bytes as base64: `head -c 32 /dev/urandom | "
      .. "base64`), bring that to all masters, and let `kplay playbooks/rotate-encryption-key.lua` put the new one in its place"
  )
end

-- Returns the keys of an EncryptionConfig, first one first; none when it encrypts nothing.
local function keys_of(text, where)
  local keys, known = {}, {}
  local config = yaml.decode(text)
  for _, resource in ipairs(config:get("resources", {})) do
    for _, provider in ipairs(resource:get("providers", {})) do
      local found = provider:get("aescbc")
      for _, key in ipairs(found and found:get("keys", {}) or {}) do
        -- The same keys serve several resources.
        if known[key.name] ~= key.secret then
          known[key.name] = key.secret
          table.insert(keys, { name = key.name, secret = secret(key.secret) })
        end
      end
      for kind in pairs(provider) do
        assert(kind == "aescbc" or kind == "identity", where .. " encrypts with `" .. kind .. "`, which this role does not manage: "
          .. "migrate to aescbc by hand, or leave `encryption_config` to you and do not use this role")
      end
    end
  end
  return keys
end

-- Returns the lines for some resources: all can be read, and are encrypted with the first key, or, where `only_read`, not yet.
local function entry(resources, keys, only_read)
  local lines = { "  - resources:" }
  for _, resource in ipairs(resources) do
    table.insert(lines, "      - " .. resource)
  end
  table.insert(lines, "    providers:")
  if only_read then
    table.insert(lines, "      - identity: {}")
  end
  table.insert(lines, "      - aescbc:")
  table.insert(lines, "          keys:")
  for _, key in ipairs(keys) do
    table.insert(lines, "            - name: " .. key.name)
    table.insert(lines, "              secret: " .. key.secret)
  end
  if not only_read then
    table.insert(lines, "      - identity: {}")
  end
  return table.concat(lines, "\n") .. "\n"
end

-- Returns the configuration as document 000 writes it, but for what is only read.
local function configuration(keys, p)
  local later, now = {}, {}
  for _, resource in ipairs(p.only_read) do
    later[resource] = true
  end
  for _, resource in ipairs(p.encrypted_resources) do
    if not later[resource] then
      table.insert(now, resource)
    end
  end
  return "kind: EncryptionConfig\napiVersion: v1\nresources:\n" .. (#now > 0 and entry(now, keys, false) or "")
    .. (#p.only_read > 0 and entry(p.only_read, keys, true) or "")
end

-- Returns the keys that lie on a host; nil when there are none.
local function keys_on(host, path)
  local found = host:stat({ path = path, content = true, digest = false }, { name = "encryption keys of " .. host.name, sensitive = true })
  if not found.exists then
    return nil
  end
  local keys = keys_of(found.content, "`" .. path .. "` on " .. host.name)
  return #keys > 0 and keys or nil
end

local function same(a, b)
  return json.encode(a) == json.encode(b)
end

-- Returns the keys of the first master that has any. All that have some must have the same.
local function adopted(p)
  local keys, owner
  for _, name in ipairs(p.encryption_peers) do
    local peer = hosts(name)[1]
    local found = keys_on(peer, p.encryption_config)
    if found and not keys then
      keys, owner = found, name
    elseif found then
      assert(same(keys, found), "`" .. p.encryption_config .. "` differs between " .. owner .. " and " .. name .. ", and the controller has no `"
        .. p.encryption_keys .. "` that says which is right: each may hold the only key to some Secrets. Write that file with the keys of both")
    end
  end
  return keys
end

return {
  summary = "Secrets encrypted in etcd, with keys that all masters share",

  params = {
    encryption_config = { type = "string", default = "/etc/kubernetes/encryption-config.yaml", doc = "The configuration on the host." },
    encryption_keys = {
      type = "string",
      required = true,
      doc = "The file on the controller that keeps the keys: `pki/NAME/encryption-keys.yaml`. Made on first use, or adopted from a master.",
    },
    encryption_peers = { type = "list", default = {}, items = { type = "string" }, doc = "All masters, by name: where keys to adopt may lie." },
    encrypted_resources = { type = "list", default = { "secrets" }, items = { type = "string" }, doc = "What is encrypted." },
    only_read = {
      type = "list",
      default = {},
      items = { type = "string" },
      doc = "What of it is read where it is encrypted, and written as it is: for the first of two passes over masters that serve, as long "
        .. "as others cannot read it.",
    },
    master_owner = { type = "string", default = "root", doc = "Owner of the file. When empty, owners are left alone." },
  },

  run = function(host, p)
    local owner = p.master_owner ~= "" and p.master_owner or nil
    local file = "`" .. p.encryption_keys .. "` on the controller"
    if not kept(p.encryption_keys) then
      once("keys of " .. p.encryption_keys, function()
        local keys = adopted(p) or { { name = "key1", secret = random_secret(32) } }
        examine(keys, "`" .. p.encryption_config .. "`, which would be adopted as " .. file)
        encryption_keys.write(p.encryption_keys, { keys = keys, dropped = {} })
      end)
    end
    local ours, known = encryption_keys.read(p.encryption_keys), {}
    local keys = ours.keys
    examine(keys, file)
    for _, key in ipairs(keys) do
      known[key.name] = key.secret
    end
    for _, name in ipairs(ours.dropped) do
      known[name] = known[name] or true
    end

    local found = keys_on(host, p.encryption_config)
    if found then
      local here, primary = "`" .. p.encryption_config .. "` on " .. host.name, false
      for _, key in ipairs(found) do
        assert(
          known[key.name] == true or known[key.name] == key.secret,
          here .. " has a key `" .. key.name .. "` that is not in " .. file .. ". Secrets may be encrypted with it, so nothing is replaced. "
            .. "Add it to `keys` there, or, if nothing is encrypted with it, list its name in `dropped`"
        )
        primary = primary or key.name == keys[1].name and key.secret == keys[1].secret
      end
      assert(
        primary,
        here .. " does not have `" .. keys[1].name .. "`, the first key of " .. file .. ": while masters change one after the other, those "
          .. "that come last could not read what the first ones write. List it second, run again on all masters, then move it to the top; "
          .. "`kplay playbooks/rotate-encryption-key.lua` does all that"
      )
    end

    local folder = p.encryption_config:match("^(.+)/[^/]+$")
    host:file({ path = folder, state = "directory", mode = "0755", parents = true })
    host:copy({ content = configuration(keys, p), dest = p.encryption_config, mode = "0600", owner = owner, group = owner, secret = true })
  end,
}
