-- Encryption is switched on in two passes where several masters serve already: as long as one of them cannot read what is encrypted,
-- none may encrypt. What the running apiservers can read is asked when a run begins.
--
--   encryption.look(master)        asks one that runs; refuses what would make Secrets unreadable
--   encryption.only_read(master)   what its configuration must not encrypt yet
--   encryption.all_can_read()      the first pass is over

local encryption = {}

-- What the apiserver of a host can read that is encrypted, by host and resource; only of those that run.
local readable = {}
-- Whether all can by now, and whether that took a first pass.
local settled, was_awaited = false, false

-- The file that a running apiserver was started with, whatever way its flags are written.
local FLAG = "tr '\\000' '\\n' < /proc/$(systemctl show -p MainPID --value kube-apiserver)/cmdline | sed 's/^\\(--[^=]*\\)=/\\1\\n/' "
  .. "| sed -n '/^--\\(experimental-\\)\\{0,1\\}encryption-provider-config$/{n;p}'"

-- Returns what a configuration makes readable, and what it encrypts: sets of resources.
local function parse(text)
  local reads, encrypts = {}, {}
  for _, entry in ipairs(yaml.decode(text):get("resources", {})) do
    local providers = entry:get("providers", {})
    for index, provider in ipairs(providers) do
      for kind in pairs(provider) do
        for _, resource in ipairs(entry:get("resources", {})) do
          reads[resource] = reads[resource] or kind ~= "identity"
          encrypts[resource] = encrypts[resource] or index == 1 and kind ~= "identity"
        end
      end
    end
  end
  return reads, encrypts
end

function encryption.look(master)
  local flag = master:shell({ command = FLAG, reads_only = true }, { name = "does it encrypt?", tags = "system" })
  local path = flag.skipped and "" or flag.stdout:match("[^\n]*")
  readable[master.name] = {}
  if path == "" then
    return
  end
  local file = master:stat({ path = path, content = true, digest = false }, { name = "what does it encrypt?", sensitive = true })
  if not file.exists then
    return
  end
  local reads, encrypts = parse(file.content)
  readable[master.name] = reads
  local wanted = {}
  for _, resource in ipairs(master.vars:get("encryption_config", "") ~= "" and master.vars:get("encrypted_resources", { "secrets" }) or {}) do
    wanted[resource] = true
  end
  for resource, here in pairs(encrypts) do
    if here and not wanted[resource] then
      master:fail("kube-apiserver encrypts " .. resource .. " (" .. path .. "), and by the inventory it would not any more (`encryption_config`, "
        .. "`encrypted_resources`): nobody could read them. Put that back; or first make `identity` the first provider in that file on all masters, by hand, "
        .. "restart them, and write all " .. resource .. " again")
    end
  end
end

-- Returns which of what the inventory wants encrypted some running apiserver could not read.
function encryption.only_read(master)
  local list = {}
  if settled or #hosts("masters") == 1 then
    return list
  end
  for _, resource in ipairs(master.vars:get("encrypted_resources", { "secrets" })) do
    for _, reads in pairs(readable) do
      if not reads[resource] then
        table.insert(list, resource)
        break
      end
    end
  end
  return list
end

function encryption.all_can_read()
  local master = hosts("masters")[1]
  was_awaited = master.vars:get("encryption_config", "") ~= "" and #encryption.only_read(master) > 0
  settled = true
end

-- Returns whether the first pass has left out anything.
function encryption.was_awaited()
  return was_awaited
end

return encryption
