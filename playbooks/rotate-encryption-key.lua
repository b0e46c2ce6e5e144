-- Gives the masters a new key for what they encrypt in etcd, in four steps, so that every master can read what any of them writes at
-- any time: the new key is added everywhere, then it encrypts, then all that is encrypted is written again, then the old one is dropped.
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
  "write again all that is encrypted",
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

-- Returns a name that no key has had yet.
local function free_name(state)
  local highest = 0
  for _, name in ipairs(state.dropped) do
    highest = math.max(highest, tonumber(name:match("%d+$")) or 0)
  end
  for _, key in ipairs(state.keys) do
    highest = math.max(highest, tonumber(key.name:match("%d+$")) or 0)
  end
  return "key" .. string.format("%d", highest + 1)
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
    assert(#state.keys <= 2, "`" .. file() .. "` has more than two keys: take out by hand those that nothing is encrypted with")
    if state.rotating_to then
      return
    end
    if #state.keys == 1 then
      table.insert(state.keys, { name = free_name(state), secret = random_secret(32) })
    end
    state.rotating_to = state.keys[2].name
    encryption_keys.write(file(), state)
    return "the new key is " .. state.rotating_to
  end,
  bring = bring,
  shared = shared,
})

rotation.pass({
  name = names[2],
  advance = function()
    local state = read()
    if #state.keys == 2 and state.keys[2].name == state.rotating_to then
      state.keys = { state.keys[2], state.keys[1] }
      encryption_keys.write(file(), state)
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
    -- Any master that serves will do. What somebody else changes or removes meanwhile is a conflict, and needs nothing more: it is
    -- encrypted with the new key by that very change.
    local master, member
    for _, host in ipairs(hosts("masters")) do
      master = master or rolling.serves(host) and host or nil
    end
    for _, host in ipairs(hosts("etcd")) do
      member = member or rolling.is_member(host) and host or nil
    end
    if not master or not member then
      controller:fail("no " .. (master and "member of etcd runs" or "master serves") .. ", so that nothing can be written again: run this again when it does")
    end
    for _, resource in ipairs(master.vars:get("encrypted_resources", { "secrets" })) do
      master:shell({
        command = "set -e -o pipefail; all=$(kubectl get \"$RESOURCE\" --all-namespaces -o name); [ -n \"$all\" ] || exit 0; "
          .. "kubectl get \"$RESOURCE\" --all-namespaces -o json | { kubectl replace -f - 2>&1 > /dev/null || true; } "
          .. "| { ! grep -vE '^(Warning:|Error from server .(Conflict|NotFound).:)' >&2; }",
        env = { KUBECONFIG = master.vars:get("admin_kubeconfig", "/root/.kube/config"), RESOURCE = resource },
        executable = "/bin/bash",
        timeout = 600,
      }, { name = "write all " .. resource .. " again", retries = 5, delay = 2 })
    end
    -- What is left of the old key is counted where it lies, whatever it is. Nothing must be taken for none when etcd does not answer.
    local folder = member.vars:get("etcd_folder", "/etc/etcd/ssl")
    local left = member:shell({
      command = "set -o pipefail; etcdctl --endpoints=https://" .. member.vars.address .. ":2379 --cacert=" .. folder .. "/ca.pem --cert="
        .. folder .. "/etcd.pem --key=" .. folder .. "/etcd-key.pem get /registry/ --prefix | tr -d '\\000' "
        .. "| { grep -acF \"k8s:enc:aescbc:v1:$KEY:\" || [ $? = 1 ]; }",
      env = { ETCDCTL_API = "3", KEY = state.keys[2].name },
      executable = "/bin/bash",
      reads_only = true,
      timeout = 600,
    }, { name = "what is encrypted with the old key" })
    if tonumber(left.stdout) ~= 0 then
      controller:fail(left.stdout:match("%d+") .. " objects are still encrypted with " .. state.keys[2].name .. ", which is therefore not dropped: run this again")
    end
  end,
}

rotation.pass({
  name = names[4],
  advance = function()
    local state = read()
    if #state.keys == 2 and state.keys[1].name == state.rotating_to then
      table.insert(state.dropped, state.keys[2].name)
      state.keys = { state.keys[1] }
      encryption_keys.write(file(), state)
    end
  end,
  bring = bring,
  shared = shared,
})

-- Only now is a rotation over: one that was stopped before is gone on with.
play {
  name = "the rotation is complete",
  hosts = "localhost",
  any_error_stops = true,
  run = function()
    local state = read()
    state.rotating_to = nil
    encryption_keys.write(file(), state)
  end,
}
