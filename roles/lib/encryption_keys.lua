-- The controller's file of the keys that encrypt Secrets in etcd, read and written:
--
--   keys:               # the first one encrypts, all of them decrypt
--     - name: key2
--       secret: …
--     - name: key1
--       secret: …
--   dropped: [key0]     # nothing is encrypted with these any more
--   rotating_to: key2   # while playbooks/rotate-encryption-key.lua is under way: the key that stays

local encryption_keys = {}

-- Returns what a file holds, `{ keys = { { name = …, secret = … }, … }, dropped = { … }, rotating_to = … }`; nil when there is none.
-- Its secrets are shown nowhere from then on.
function encryption_keys.read(path)
  local text = kept(path)
  if not text then
    return nil
  end
  local file = yaml.decode(text)
  local state = { keys = {}, dropped = {}, rotating_to = file:get("rotating_to") }
  for _, key in ipairs(file.keys) do
    table.insert(state.keys, { name = key.name, secret = secret(key.secret) })
  end
  for _, name in ipairs(file:get("dropped", {})) do
    table.insert(state.dropped, name)
  end
  return state
end

-- Writes a file, from a table such as `read` returns.
function encryption_keys.write(path, state)
  local lines = { "# Keys that encrypt Secrets in etcd. The first one encrypts, all of them decrypt. Whoever has them can read all Secrets.", "keys:" }
  for _, key in ipairs(state.keys) do
    table.insert(lines, "  - name: " .. key.name)
    table.insert(lines, "    secret: " .. key.secret)
  end
  table.insert(lines, "dropped: [" .. table.concat(state.dropped, ", ") .. "]")
  if state.rotating_to then
    table.insert(lines, "rotating_to: " .. state.rotating_to)
  end
  keep(path, table.concat(lines, "\n") .. "\n")
end

return encryption_keys
