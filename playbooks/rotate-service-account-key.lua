-- Gives the masters a new pair of keys for the tokens of service accounts, in three passes, so that no token is refused meanwhile:
-- first every master learns to verify with the new key, then all sign with it, and later the old one is dropped.
--
--   kplay playbooks/rotate-service-account-key.lua -i inventory/hdss7.yaml --check    lists the steps
--   kplay playbooks/rotate-service-account-key.lua -i inventory/hdss7.yaml            does them
--
-- The old key is dropped only when all tokens that it has signed have expired: `token_lifetime` seconds after the second pass, a day
-- when the inventory does not say. Until then the playbook ends there; run it again later. Tokens in Secrets never expire: those that
-- are older than the second pass have to be made anew before (delete the Secret). What is signed by which key is kept in
-- `pki_folder`, in service-account-keys.yaml.

local rolling = require "rolling"
local rotation = require "rotation"
local cluster = require "cluster"
local procedure = require "procedure"

local names = {
  "add a new key to those that masters verify with",
  "sign with the new key",
  "drop the old key, once what it has signed has expired",
}

if check_mode then
  procedure({ name = "rotate the service accounts' key", { names[1] }, { names[2] }, { names[3] } })
  return
end

local function file()
  return hosts("masters")[1].vars.pki_folder .. "/service-account-keys.yaml"
end

local function keys()
  local text = kept(file())
  return text and yaml.decode(text) or { signer = "service-accounts", verifiers = { "service-accounts" }, switched = 0 }
end

local function write(state)
  keep(file(), "# Pairs of keys in this folder: the one that signs tokens of service accounts, and those that they are verified with.\n"
    .. "signer: " .. state.signer .. "\nverifiers: [" .. table.concat(state.verifiers, ", ") .. "]\n"
    .. "# When the last master had begun to sign with it, seconds since 1970; 0 before.\nswitched: " .. string.format("%d", state.switched) .. "\n")
end

local function shared(master)
  local base = master.vars:get("ssl_folder", "/etc/kubernetes/server/ssl") .. "/" .. master.vars:get("service_account_key", "sa")
  return { base .. ".pem", base .. "-key.pem" }
end

rolling.ask()

-- Set when this run begins a rotation: one that is waiting to drop a key is finished before another begins.
rotation.pass({
  name = names[1],
  advance = function()
    local state = keys()
    if #state.verifiers == 1 then
      local new = "service-accounts-" .. os.date("!%Y%m%d%H%M%S")
      write({ signer = state.signer, verifiers = { state.signer, new }, switched = 0 })
      return "the new key is " .. new
    end
  end,
  bring = cluster.pki,
  shared = shared,
})

rotation.pass({
  name = names[2],
  advance = function()
    local state = keys()
    if state.signer == state.verifiers[1] and #state.verifiers == 2 then
      write({ signer = state.verifiers[2], verifiers = state.verifiers, switched = 0 })
    end
  end,
  bring = cluster.pki,
  shared = shared,
})

-- The old key may have signed until the last master has changed.
play {
  name = "from when on all sign with it",
  hosts = "localhost",
  any_error_stops = true,
  run = function()
    local state = keys()
    if state.signer == state.verifiers[2] and state.switched == 0 then
      write({ signer = state.signer, verifiers = state.verifiers, switched = os.time() })
    end
  end,
}

rotation.pass({
  name = names[3],
  advance = function()
    local state = keys()
    local left = state.switched + tonumber(hosts("masters")[1].vars:get("token_lifetime", 86400)) - os.time()
    if left > 0 then
      return "tokens that the old key has signed are valid for " .. string.format("%d", left) .. " s more: run this again then"
    end
    write({ signer = state.signer, verifiers = { state.signer }, switched = state.switched })
  end,
  bring = cluster.pki,
  shared = shared,
})
