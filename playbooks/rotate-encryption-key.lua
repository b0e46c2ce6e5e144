-- Gives the masters a new key for what they encrypt in etcd, in four steps, so that every master can read what any of them writes at
-- any time: the new key is added everywhere, then it encrypts, then all Secrets are written again, then the old one is dropped.
--
--   kplay playbooks/rotate-encryption-key.lua -i inventory/k8scloud.yaml --check    lists the steps
--   kplay playbooks/rotate-encryption-key.lua -i inventory/k8scloud.yaml            does them
--
-- It needs `encryption_config` in the inventory (role encryption-at-rest). The keys are kept in `pki_folder`, in encryption-keys.yaml:
-- keep a copy of that file, for without it nobody can read the Secrets in a backup of etcd.

local rolling = require "rolling"
local rotation = require "rotation"
local cluster = require "cluster"
local procedure = require "procedure"
local encryption_keys = require "lib.encryption_keys"

local names = {
  "add a new key on all masters",
  "encrypt with the new key on all masters",
  "write all Secrets again",
  "drop the old key on all masters",
}

if check_mode then
  procedure({ name = "rotate the encryption key", { names[1] }, { names[2] }, { names[3] }, { names[4] } })
  return
end

local function file()
  local master = hosts("masters")[1]
  assert(master.vars:get("encryption_config", "") ~= "", "the inventory has no `encryption_config`: nothing is encrypted, and there is no key")
  return master.vars.pki_folder .. "/encryption-keys.yaml"
end

local function read()
  local state = encryption_keys.read(file())
  assert(state, "`" .. file() .. "` is not there: run playbooks/apiserver.lua first, which makes it or adopts the keys of a master")
  return state
end

-- Returns the number in a key's name: later ones are higher.
local function number(key)
  return tonumber(key.name:match("%d+$")) or 0
end

local function shared(master)
  return { master.vars.encryption_config }
end

local function bring(master)
  cluster.apiserver(master, { "configure" })
end

rolling.ask()

rotation.pass({
  name = names[1],
  advance = function()
    local state = read()
    if #state.keys == 1 then
      local new = { name = "key" .. string.format("%d", number(state.keys[1]) + 1), secret = random_secret(32) }
      encryption_keys.write(file(), { keys = { state.keys[1], new }, dropped = state.dropped })
      return "the new key is " .. new.name
    end
  end,
  bring = bring,
  shared = shared,
})

rotation.pass({
  name = names[2],
  advance = function()
    local state = read()
    if #state.keys == 2 and number(state.keys[1]) < number(state.keys[2]) then
      encryption_keys.write(file(), { keys = { state.keys[2], state.keys[1] }, dropped = state.dropped })
    end
  end,
  bring = bring,
  shared = shared,
})

play {
  name = names[3],
  hosts = "localhost",
  any_error_stops = true,
  run = function(controller)
    local state = read()
    if #state.keys < 2 then
      return
    end
    -- Any master that serves will do. What somebody else changes meanwhile is encrypted with the new key by that very change.
    for _, master in ipairs(hosts("masters")) do
      if rolling.serves(master) then
        master:shell({
          command = "set -o pipefail; kubectl get secrets --all-namespaces -o json | kubectl replace -f - | wc -l",
          env = { KUBECONFIG = master.vars:get("admin_kubeconfig", "/root/.kube/config") },
          executable = "/bin/bash",
          timeout = 600,
        }, { name = "write all Secrets again", retries = 5, delay = 2 })
        break
      end
    end
    -- What is left of the old key is counted where it lies.
    local member = hosts("etcd")[1]
    local folder = member.vars:get("etcd_folder", "/etc/etcd/ssl")
    local left = member:shell({
      command = "etcdctl --endpoints=https://" .. member.vars.address .. ":2379 --cacert=" .. folder .. "/ca.pem --cert=" .. folder
        .. "/etcd.pem --key=" .. folder .. "/etcd-key.pem get /registry/secrets --prefix | tr -d '\\000' | grep -ac 'k8s:enc:aescbc:v1:"
        .. state.keys[2].name .. ":' || true",
      env = { ETCDCTL_API = "3" },
      reads_only = true,
    }, { name = "Secrets that are encrypted with the old key" })
    if tonumber(left.stdout) ~= 0 then
      controller:fail(left.stdout:match("%d+") .. " Secrets are still encrypted with " .. state.keys[2].name .. ", which is therefore not dropped: run this again")
    end
  end,
}

rotation.pass({
  name = names[4],
  advance = function()
    local state = read()
    if #state.keys == 2 and number(state.keys[1]) > number(state.keys[2]) then
      table.insert(state.dropped, state.keys[2].name)
      encryption_keys.write(file(), { keys = { state.keys[1] }, dropped = state.dropped })
    end
  end,
  bring = bring,
  shared = shared,
})
